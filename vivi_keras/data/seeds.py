"""Random numbers that are pure functions of the words they are asked with.

TensorFlow's stateless generators take one seed a call; a batch needs one a
position, so that a row's numbers depend neither on the batch around it nor on
the replica that computes it. A 32-bit integer hash gives that in a few
vectorised operations, with the same bits on every device and under XLA.
"""

import tensorflow as tf

_MASK = 0xFFFFFFFF


def mix(words):
    """Scrambles 32-bit words held in int64, one to one.

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
    """One 32-bit key from integers; tensors broadcast against each other.

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
    """An int64 tensor; Python integers wrap modulo 2**64."""
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
