"""Which records, shots and frames a step takes: pure functions.

Everything here is a function of (seed, position), position being the row's
place in the endless global sequence, step * batch_size + row. So a batch is a
pure function of (data set, seed, step): resuming costs nothing and no setting
of parallelism changes it.
"""

import tensorflow as tf

from vivi_keras.data import seeds

# Words that keep the streams of random numbers apart.
_SHUFFLE, _CLIP = 1, 2


def records_of_positions(positions, num_records, seed):
    """The record each position of the global sequence takes.

    An epoch is `num_records` positions and takes every record once, each
    epoch in another order; where an epoch ends inside a batch the next one
    begins in it.

    Args:
        positions: int64 [B], >= 0.
        num_records: int, > 0.
        seed: int.
    Returns: int64 [B] in [0, num_records).
    """
    epochs = positions // num_records
    words = [seeds.fold(seed, _SHUFFLE, epochs, part) for part in range(3)]
    # The raw operation, because tf.random.experimental.index_shuffle (2.21)
    # pads the wrong axis of a seed with a batch dimension.
    return tf.raw_ops.RandomIndexShuffle(
        index=positions % num_records,
        seed=tf.stack(words, axis=-1),  # [B, 3]
        max_index=tf.constant(num_records - 1, tf.int64),
        rounds=4,
    )


def draws_of_positions(positions, num_draws, seed):
    """Uniform numbers for each position's clip.

    Args:
        positions: int64 [B].
        num_draws: int.
        seed: int.
    Returns: float32 [B, num_draws] in [0, 1).
    """
    return seeds.uniforms(seeds.fold(seed, _CLIP, positions), num_draws)


def choose_frames(shot_index, num_shots, frames_per_shot, draws):
    """Frames of consecutive shots of a record, at a random place in it.

    The shots are a run of `num_shots` at a random offset (all of them, then
    padding, where the record has fewer). The frames of a shot are distinct,
    in order of time and spread at random over it; a shot with fewer than
    `frames_per_shot` frames repeats them.

    Args:
        shot_index: int64 [N], non-decreasing from 0 by steps of 0 or 1.
        num_shots: int S.
        frames_per_shot: int F.
        draws: float32 [1 + S * F] in [0, 1).
    Returns: (frames int64 [S, F] in [0, N), shot_mask bool [S]); padding
        comes last and has frame 0.
    """
    available = shot_index[-1] + 1
    offset = seeds.integers(draws[0], tf.maximum(available - num_shots, 0) + 1)
    shots = offset + tf.range(num_shots, dtype=tf.int64)  # [S]
    shot_mask = shots < available
    first = tf.searchsorted(shot_index, shots, "left", tf.int64)
    sizes = tf.searchsorted(shot_index, shots, "right", tf.int64) - first
    draws = tf.reshape(draws[1:], [num_shots, frames_per_shot])
    spare = tf.maximum(sizes - frames_per_shot, 0) + 1
    places = seeds.integers(tf.sort(draws, axis=1), spare[:, tf.newaxis])
    order = tf.range(frames_per_shot, dtype=tf.int64)
    # A sorted draw from the spare places plus 0, 1, ...: distinct, in order.
    enough = places + order
    repeated = order * sizes[:, tf.newaxis] // frames_per_shot
    inside = tf.where(
        (sizes >= frames_per_shot)[:, tf.newaxis], enough, repeated
    )
    frames = tf.where(
        shot_mask[:, tf.newaxis], first[:, tf.newaxis] + inside, 0
    )
    return frames, shot_mask  # [S, F], [S]
