"""Chooses the frames of a step: random numbers, records and frames."""

import numpy as np
import tensorflow as tf

_MASK = 0xFFFFFFFF


def mix(words):
    """Scrambles 32-bit words, stored as int64; the mapping is one to one.

    Args:
        words: int64, any shape, values in [0, 2**32).
    Returns: int64, same shape, values in [0, 2**32).
    Source: "lowbias32" of Chris Wellons' hash-prospector (public domain).
    """
    words = tf.bitwise.bitwise_xor(words, tf.bitwise.right_shift(words, 16))
    words = tf.bitwise.bitwise_and(words * 0x7FEB352D, _MASK)
    words = tf.bitwise.bitwise_xor(words, tf.bitwise.right_shift(words, 15))
    words = tf.bitwise.bitwise_and(words * 0x846CA68B, _MASK)
    return tf.bitwise.bitwise_xor(words, tf.bitwise.right_shift(words, 16))


def fold(*words):
    """Hashes integers to a 32-bit key; tensors are broadcast.

    Args:
        *words: Python integers or integer tensors, taken modulo 2**64.
    Returns: int64, the broadcast shape, values in [0, 2**32).
    """
    key = tf.constant(0x9E3779B9, tf.int64)
    for word in words:
        word = as_int64(word)
        low = tf.bitwise.bitwise_and(word, _MASK)
        high = tf.bitwise.bitwise_and(tf.bitwise.right_shift(word, 32), _MASK)
        for half in (low, high):
            key = mix(tf.bitwise.bitwise_and(key * 0x01000193 + half, _MASK))
    return key


def as_int64(word):
    """Converts to an int64 tensor; Python integers wrap modulo 2**64."""
    if isinstance(word, int):
        return tf.constant((word + 2**63) % 2**64 - 2**63, tf.int64)
    return tf.cast(tf.convert_to_tensor(word), tf.int64)


def uniforms(keys, num_draws):
    """Uniform numbers in [0, 1), `num_draws` for each key.

    Args:
        keys: int64 [...], from `fold`.
        num_draws: int.
    Returns: float32 [..., num_draws], multiples of 2**-24.
    """
    counters = mix(tf.range(1, num_draws + 1, dtype=tf.int64))
    words = tf.bitwise.bitwise_xor(keys[..., tf.newaxis], counters)
    words = mix(tf.bitwise.bitwise_and(words * 0x01000193, _MASK))
    words = tf.bitwise.right_shift(mix(words), 8)
    return tf.cast(words, tf.float32) * 2.0**-24


def integers(draws, sizes):
    """Integers in [0, size) from uniform numbers.

    Args:
        draws: float32 in [0, 1).
        sizes: int64, > 0, broadcast against `draws`.
    Returns: int64, the broadcast shape.
    """
    scaled = tf.cast(draws * tf.cast(sizes, tf.float32), tf.int64)
    return tf.minimum(scaled, sizes - 1)  # float32 may round up to size


# Words that give each use its own random numbers.
_SHUFFLE, _CLIP = 1, 2


def records_of_positions(positions, num_records, seed):
    """The record for each position of the global sequence.

    An epoch is `num_records` positions: every record once, in another order
    each epoch. If an epoch ends inside a batch, the next one begins in the
    same batch.

    Args:
        positions: int64 [B], >= 0.
        num_records: int, > 0.
        seed: int.
    Returns: int64 [B] in [0, num_records).
    """
    epochs = positions // num_records
    words = [fold(seed, _SHUFFLE, epochs, part) for part in range(3)]
    # Uses the raw operation: tf.random.experimental.index_shuffle (2.21) pads
    # the wrong axis of a seed that has a batch dimension.
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
    return uniforms(fold(seed, _CLIP, positions), num_draws)


def choose_frames(shot_index, num_shots, frames_per_shot, draws):
    """Chooses frames of consecutive shots from a random place in a record.

    The shots are `num_shots` in a row at a random offset; if the record has
    fewer, all of them, then padding. The frames of a shot are distinct, in
    order of time and spread at random over it; a shot with fewer than
    `frames_per_shot` frames repeats them.

    Args:
        shot_index: int64 [N], non-decreasing from 0 by steps of 0 or 1.
        num_shots: int S.
        frames_per_shot: int F.
        draws: float32 [1 + S * F] in [0, 1).
    Returns: NumPy arrays (frames int64 [S, F] in [0, N), shot_mask bool
        [S]); padding comes last and has frame 0.
    """
    available = int(shot_index[-1]) + 1
    offset = _integers(draws[0], max(available - num_shots, 0) + 1)
    shots = offset + np.arange(num_shots)  # [S]
    shot_mask = shots < available
    first = np.searchsorted(shot_index, shots, "left")
    sizes = np.searchsorted(shot_index, shots, "right") - first
    draws = np.reshape(draws[1:], [num_shots, frames_per_shot])
    spare = np.maximum(sizes - frames_per_shot, 0) + 1
    places = _integers(np.sort(draws, axis=1), spare[:, np.newaxis])
    order = np.arange(frames_per_shot)
    # Sorted draws from the spare places, plus 0, 1, ...: distinct, in order.
    enough = places + order
    repeated = order * sizes[:, np.newaxis] // frames_per_shot
    inside = np.where(
        (sizes >= frames_per_shot)[:, np.newaxis], enough, repeated
    )
    frames = np.where(
        shot_mask[:, np.newaxis], first[:, np.newaxis] + inside, 0
    )
    return frames.astype(np.int64), shot_mask  # [S, F], [S]


def _integers(draws, sizes):
    """`integers` for NumPy arrays, with identical results."""
    scaled = draws * np.asarray(sizes, np.float32)
    return np.minimum(scaled.astype(np.int64), np.asarray(sizes) - 1)
