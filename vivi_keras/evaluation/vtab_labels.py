"""How VTAB reads labels and images out of its data sets' examples.

Each function takes a decoded TFDS example, a dict of tensors.
"""

import tensorflow as tf

CLEVR_EDGES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
# Class 3 is "no vehicle": 1000 m are added to the distances.
KITTI_EDGES = (-100.0, 8.0, 20.0, 999.0)
KITTI_NOTHING = 1000.0
NUM_VEHICLE_TYPES = 3  # Car, Van, Truck come first
FEWEST_OBJECTS = 3
SPRITE_BINS = 16


def plain(key):
    """Takes a feature as it is; labels become int64."""

    def read(example):
        value = example[key]
        return tf.cast(value, tf.int64) if value.shape.rank == 0 else value

    return read


def bin_of(distance, edges):
    """The largest i with edges[i] strictly below a distance: int64 scalar.

    A distance on an edge falls into the lower bin.
    """
    below = tf.cast(tf.constant(edges) < distance, tf.int64)
    return tf.reduce_sum(below) - 1


def clevr_count(example):
    """The number of objects, less the fewest there are."""
    count = tf.shape(example["objects"]["size"], tf.int64)[0]
    return count - FEWEST_OBJECTS


def clevr_distance(example):
    """The bin of the closest object's depth."""
    depth = example["objects"]["pixel_coords"][:, 2]
    return bin_of(tf.reduce_min(depth), CLEVR_EDGES)


def kitti_distance(example):
    """The bin of the closest vehicle's distance ahead, in metres."""
    is_vehicle = example["objects"]["type"] < NUM_VEHICLE_TYPES
    ahead = example["objects"]["location"][:, 2]
    ahead = tf.concat([tf.boolean_mask(ahead, is_vehicle), [KITTI_NOTHING]], 0)
    return bin_of(tf.reduce_min(ahead), KITTI_EDGES)


def sprite_label(key, num_classes):
    """floor(label / (classes / 16)): a factor in 16 bins."""

    def read(example):
        label = tf.cast(example[key], tf.float64)
        return tf.cast(label // (num_classes / SPRITE_BINS), tf.int64)

    return read


def grey_image(example):
    """A grey image in three equal channels."""
    return tf.repeat(example["image"], 3, axis=-1)


def sprite_image(example):
    """As `grey_image`; pixels stored as 0 and 1 become 0 and 255."""
    image = grey_image(example)
    is_binary = tf.reduce_max(image) <= 1
    return tf.where(is_binary, image * 255, image)
