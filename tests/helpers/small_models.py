"""A model that traces in a second, and batches for it."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from vivi_keras.objective import Objective, make_level
from vivi_keras.trainer.model import ViviModel

LEVELS = {
    "rotation": {},
    # Smooth in the weights, where the triplet loss picks its negatives.
    "shot_exemplar": {"loss": "nt_xent", "temperature": 0.5, "head_units": 16},
    "video_info_nce": {"weight": 0.5, "units": 8},
}


def batches(steps=5, rows=8, size=16, padded=True):
    """Smooth clips whose colours tell their video; some lack a shot."""
    generator = np.random.default_rng(0)
    base = generator.uniform(40, 200, (steps, rows, 3, 1, 1, 1, 3))
    ramp = np.linspace(-30, 30, size).reshape(1, 1, 1, 1, size, 1, 1)
    noise = generator.normal(0, 8, (steps, rows, 3, 2, size, size, 3))
    mask = np.ones((steps, rows, 3), bool)
    mask[:, ::3, 2] = not padded
    return tf.data.Dataset.from_tensor_slices(
        {
            "frames": np.clip(base + ramp + noise, 0, 255).astype("uint8"),
            "shot_mask": mask,
            "video_id": np.arange(steps * rows).reshape(steps, rows),
        }
    )


def make_encoder(norm=True, channels=8):
    """Two convolutions, with batch norm over all replicas between."""
    decay = keras.regularizers.L2(1e-3)
    images = keras.Input((None, None, 3))
    x = layers.Conv2D(channels, 3, 2, kernel_regularizer=decay)(images)
    if norm:
        x = layers.BatchNormalization(momentum=0.9, synchronized=True)(x)
    x = layers.Conv2D(2 * channels, 3, 2, kernel_regularizer=decay)(
        layers.ReLU()(x)
    )
    return keras.Model(
        images, layers.GlobalAveragePooling2D(dtype="float32")(x)
    )


def make_model(
    optimizer,
    levels=("shot_exemplar", "video_info_nce"),
    norm=True,
    **arguments,
):
    """A compiled model whose first weights are always the same."""
    keras.utils.set_random_seed(0)
    objective = Objective([make_level(k, **LEVELS[k]) for k in levels])
    model = ViviModel(make_encoder(norm), objective, **arguments)
    model.compile(optimizer)
    return model


def weights(model):
    """All weights that training changes, in one vector."""
    return np.concatenate([np.ravel(v) for v in model.trainable_variables])
