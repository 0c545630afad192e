"""Random numbers, and the records and frames that they choose for a step.

Random numbers are hashes of integers, computed with 32-bit words: the same
integers give the same numbers on every machine and with every backend. By
default they are computed by NumPy; with `ops=keras.ops` by Keras's backend.
"""

import functools

import numpy as np
from keras import ops as keras_ops

_FACTOR = np.uint32(0x01000193)


def mix(words, ops=np):
    """Scrambles 32-bit words; the mapping is one to one.

    Args:
        words: uint32, any shape.
    Returns: uint32, same shape.
    Source: "lowbias32" of Chris Wellons' hash-prospector (public domain).
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        words = ops.bitwise_xor(words, ops.right_shift(words, np.uint32(shift)))
        words = ops.multiply(words, np.uint32(factor))
    return ops.bitwise_xor(words, ops.right_shift(words, np.uint32(16)))


def fold(*words, ops=np):
    """Hashes integers to a 32-bit key; arrays are broadcast.

    Args:
        *words: Python integers, or integer arrays or tensors, taken modulo
            2**64.
        ops: numpy, or keras.ops for tensors.
    Returns: uint32, the broadcast shape.
    """
    key = np.array([0x9E3779B9], np.uint32)
    for word in words:
        for half in _halves(word):
            key = mix(ops.add(ops.multiply(key, _FACTOR), half), ops)
    shape = np.broadcast_shapes(*[np.shape(word) for word in words])
    return ops.reshape(key, shape)


def _halves(word):
    """The low and the high 32 bits of integers, as uint32."""
    if isinstance(word, int):
        word = np.array([word % 2**64], np.uint64)
    if isinstance(word, (np.ndarray, np.integer)):
        word = word.astype(np.int64) if word.dtype.kind == "i" else word
        word = word.astype(np.uint64)
        return word.astype(np.uint32), (word >> 32).astype(np.uint32)
    low = keras_ops.cast(word, "uint32")
    if keras_ops.dtype(word) == "int64":
        return low, keras_ops.cast(keras_ops.right_shift(word, 32), "uint32")
    # Only 64-bit integers have a high half; negative ones fill it with ones.
    return low, keras_ops.where(word < 0, np.uint32(2**32 - 1), np.uint32(0))


def uniforms(keys, num_draws, ops=np):
    """Uniform numbers in [0, 1), `num_draws` for each key.

    Args:
        keys: uint32 [...], from `fold`.
        num_draws: int.
        ops: numpy, or keras.ops for tensors.
    Returns: float32 [..., num_draws], multiples of 2**-24.
    """
    counters = mix(np.arange(1, num_draws + 1, dtype=np.uint32))
    words = ops.bitwise_xor(keys[..., None], counters)
    words = mix(mix(ops.multiply(words, _FACTOR), ops), ops)
    words = ops.right_shift(words, np.uint32(8))
    if ops is np:
        return words.astype(np.float32) * np.float32(2.0**-24)
    return ops.cast(words, "float32") * 2.0**-24


def integers(draws, sizes):
    """Integers in [0, size) from uniform numbers.

    Args:
        draws: float32 in [0, 1).
        sizes: integers > 0, broadcast against `draws`.
    Returns: int64, the broadcast shape.
    """
    scaled = draws * np.asarray(sizes, np.float32)
    # float32 may round up to the size.
    return np.minimum(scaled.astype(np.int64), np.asarray(sizes) - 1)


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
    positions = np.asarray(positions, np.int64)
    epochs = positions // num_records
    places, different = positions % num_records, np.unique(epochs)
    if num_records <= _BLOCKS and len(different) <= _MOST_ORDERS:
        found = np.empty_like(places)
        for epoch in different.tolist():
            rows = epochs == epoch
            order = _order_of_epoch(num_records, seed, epoch)
            found[rows] = order[places[rows]]
        return found
    keys = [fold(seed, _SHUFFLE, epochs, part) for part in range(3)]
    return _shuffle(places, keys, num_records)


def record_of_position(position, num_records, seed):
    """The record for one position; see `records_of_positions`.

    Neighbouring positions are computed together, since each call of NumPy
    takes about as long for a thousand numbers as for one.

    Args:
        position: int, >= 0.
    Returns: int in [0, num_records).
    """
    if num_records <= _BLOCKS:
        return int(records_of_positions([position], num_records, seed)[0])
    first = position - position % _POSITIONS
    return int(_records_from(first, num_records, seed)[position - first])


_POSITIONS = 1024  # computed together


@functools.lru_cache(maxsize=64)
def _records_from(first, num_records, seed):
    positions = np.arange(first, first + _POSITIONS)
    return records_of_positions(positions, num_records, seed)


_BLOCKS = 2**16  # number of blocks of `_shuffle`'s smallest cipher
_MOST_ORDERS = 4


@functools.lru_cache(maxsize=2 * _MOST_ORDERS)
def _order_of_epoch(num_records, seed, epoch):
    """`_shuffle` of all records of an epoch: int64 [num_records].

    With few records, most blocks lie outside the range: to find one record
    alone may take hundreds of encryptions. Here each block is encrypted once.
    """
    keys = [fold(seed, _SHUFFLE, np.array([epoch]), k) for k in range(3)]
    following = _shuffle(np.arange(_BLOCKS), keys, _BLOCKS).tolist()
    order = []
    for place in range(num_records):
        place = following[place]
        while place >= num_records:
            place = following[place]
        order.append(place)
    return np.array(order, np.int64)


def _shuffle(indices, keys, size):
    """A permutation of range(size) that depends on three keys.

    Four rounds of the block cipher SIMON permute the numbers below a power
    of 4; a number that leaves the range is permuted again until it is inside.
    The same as tf.random.experimental.index_shuffle with rounds=4.

    Args:
        indices: int64 [N] in [0, size).
        keys: three uint32 [N].
        size: int.
    Returns: int64 [N] in [0, size).
    Sources: SIMON, https://eprint.iacr.org/2013/404; walking back into the
        range, https://www.cs.ucdavis.edu/~rogaway/papers/subset.pdf.
    """
    half = max(-(-(size - 1).bit_length() // 2), 8)  # bits of half a block
    mask = np.uint64(2**half - 1)

    def rotate(word, bits):
        left, right = np.uint64(bits % half), np.uint64(-bits % half)
        return ((word << left) | (word >> right)) & mask

    def scramble(word):
        both = rotate(word, 1) & rotate(word, 8)
        return both ^ rotate(word, 2)

    first, second, third = (key.astype(np.uint64) & mask for key in keys)
    fourth = np.uint64(0xFFFFFFFD) & mask ^ first
    fourth ^= rotate(third, -3) ^ rotate(third, -4)

    def encrypt(block):
        left, right = block >> np.uint64(half), block & mask
        for even, odd in ((first, second), (third, fourth)):
            left = left ^ scramble(right) ^ even
            right = right ^ scramble(left) ^ odd
        return left << np.uint64(half) | right

    found = encrypt(indices.astype(np.uint64))
    while (found >= size).any():
        found = np.where(found >= size, encrypt(found), found)
    return found.astype(np.int64)


def draws_of_positions(positions, num_draws, seed):
    """Uniform numbers for each position's clip.

    Args:
        positions: int64 [B].
        num_draws: int.
        seed: int.
    Returns: float32 [B, num_draws] in [0, 1).
    """
    return uniforms(fold(seed, _CLIP, positions), num_draws)


def choose_frames(
    shot_index, num_shots, frames_per_shot, draws, seconds=None, gap=None
):
    """Chooses frames of consecutive shots from a random place in a record.

    These are `num_shots` consecutive shots from a random offset, or, if the
    record has fewer, all of its shots and then padding. The frames of a shot
    are distinct, in order of time and spread at random over it; a shot with
    fewer than `frames_per_shot` frames repeats them.

    Args:
        shot_index: int64 [N], non-decreasing from 0 by steps of 0 or 1.
        num_shots: int S.
        frames_per_shot: int F.
        draws: float32 [1 + S * F] in [0, 1).
        seconds: float [N], times of the frames; needed for `gap`.
        gap: None, or (least, most) seconds between one frame of a shot and the
            next; a shot without two such frames is treated as without `gap`.
    Returns: NumPy arrays (frames int64 [S, F] in [0, N), shot_mask bool
        [S]); padding comes last and has frame 0.
    """
    available = int(shot_index[-1]) + 1
    offset = integers(draws[0], max(available - num_shots, 0) + 1)
    shots = offset + np.arange(num_shots)  # [S]
    shot_mask = shots < available
    first = np.searchsorted(shot_index, shots, "left")
    sizes = np.searchsorted(shot_index, shots, "right") - first
    draws = np.reshape(draws[1:], [num_shots, frames_per_shot])
    spare = np.maximum(sizes - frames_per_shot, 0) + 1
    places = integers(np.sort(draws, axis=1), spare[:, np.newaxis])
    order = np.arange(frames_per_shot)
    # Sorted draws from the spare places, plus 0, 1, ...: distinct, in order.
    enough = places + order
    repeated = order * sizes[:, np.newaxis] // frames_per_shot
    inside = np.where(
        (sizes >= frames_per_shot)[:, np.newaxis], enough, repeated
    )
    if gap is not None:
        for row in np.flatnonzero(shot_mask):
            times = seconds[first[row] : first[row] + sizes[row]]
            inside[row] = _near_frames(times, draws[row], gap, inside[row])
    frames = np.where(
        shot_mask[:, np.newaxis], first[:, np.newaxis] + inside, 0
    )
    return frames.astype(np.int64), shot_mask  # [S, F], [S]


# float32 rounds times of long videos to about this.
_ROUNDING_SECONDS = 2e-3


def _near_frames(times, draws, gap, otherwise):
    """Chooses frames of a shot, each `gap` seconds after the one before it.

    The first is drawn from the frames that have a next one within `gap`. Where
    a frame has no next one, the following ones repeat it.

    Args:
        times: float [n], ascending.
        draws: float32 [F] in [0, 1).
        gap: (least, most) seconds.
        otherwise: what to return if no frame has a next one.
    Returns: int64 [F] in [0, n).
    """
    times = np.asarray(times, np.float64)
    least, most = gap[0] - _ROUNDING_SECONDS, gap[1] + _ROUNDING_SECONDS
    # The next frame is one of [low, high).
    low = np.searchsorted(times, times + least, "left")
    low = np.maximum(low, np.arange(len(times)) + 1)
    high = np.searchsorted(times, times + most, "right")
    able = np.flatnonzero(high > low)
    if not len(able):
        return otherwise
    place = able[integers(draws[0], len(able))]
    found = [place]
    for draw in draws[1:]:
        if high[place] > low[place]:
            place = low[place] + integers(draw, high[place] - low[place])
        found.append(place)
    return np.array(found, np.int64)
