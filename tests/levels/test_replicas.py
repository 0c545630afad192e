"""The same global batches on one, two and four replicas: the same weights."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from vivi_keras.runs import build
from vivi_keras.trainer import batch
from vivi_keras.training.configs import rows

STEPS, ROWS, SIZE, CLASSES = 5, 8, 24, 5
# In float32 a difference of 1e-7 at the start grows, on one device alone, to
# between 1e-3 and 2e-2 in five steps (ReLUs and semi-hard negatives change
# sides), which would hide a fault. In float64 all rows but one agree to 1e-12
# and that one (ex_yt_shot, four replicas) to 2e-6.
FLOATX, TOLERANCE = "float64", 1e-5
LEARNING_RATE = 0.01


def objectives():
    """Row name -> config, one for each different objective."""
    found = {}
    for name in rows.ROWS:
        if name.startswith("adapt"):
            continue  # levels of the other rows, on another encoder
        config = rows.get_config(name)
        config.model.update(width=0.125, units=(1, 1, 1, 1))
        config.data.image_size = SIZE
        if "supervised" in config.objective:
            config.objective.supervised.num_classes = CLASSES
        key = str((config.objective, config.data.num_shots, config.data.views))
        if config.train.steps:
            found.setdefault(key, (name, config))
    return dict(found.values())


def soft_fields(generator, shape):
    """Pictures uint8 [*shape]: a soft colour field, shifted, with noise."""
    coarse = generator.uniform(0, 255, (shape[0], 8, 8, 3))
    fields = tf.image.resize(coarse, (2 * SIZE, 2 * SIZE), "bicubic").numpy()
    pictures = np.empty(shape, "uint8")
    for place in np.ndindex(*shape[:-3]):
        top, left = generator.integers(0, SIZE, 2)
        picture = fields[place[0], top : top + SIZE, left : left + SIZE]
        picture = picture * generator.uniform(0.7, 1.2)
        noise = generator.normal(0, 8, picture.shape)
        pictures[place] = np.clip(picture + noise, 0, 255)
    return pictures


def batches(spec):
    """STEPS global batches as `spec` says, with padding and no-labels."""
    generator = np.random.default_rng(0)
    count = STEPS * ROWS
    content = {}
    for name in ("frames", "image"):
        if name in spec:
            shape = (count, *spec[name].shape[1:])
            content[name] = soft_fields(generator, shape)
    if "frames" in spec:
        mask = np.ones((count, spec["shot_mask"].shape[1]), bool)
        if mask.shape[1] > 1:
            mask[::3, -1] = False
        content.update(shot_mask=mask, video_id=np.arange(count))
    if "image" in spec:
        content["label"] = np.arange(count) % (CLASSES + 1) - 1  # -1: none
    content = {
        name: values.reshape(STEPS, ROWS, *values.shape[1:])
        for name, values in content.items()
    }
    return tf.data.Dataset.from_tensor_slices(content)


def train(strategy, config):
    """All weights after STEPS steps, and how far they went at most."""
    count = strategy.num_replicas_in_sync
    data = batches(build.element_spec(config))
    with strategy.scope():
        model = build.build_model(config)
        model.compile(keras.optimizers.SGD(LEARNING_RATE))
    model.build_from(batch.replica_spec(data.element_spec, count))
    # Drawn anew, so that each count starts from the same weights.
    start = [v.numpy() for v in model.trainable_variables]
    model.fit(data, verbose=0)
    stop = [v.numpy() for v in model.trainable_variables]
    moved = max(abs(a - b).max() for a, b in zip(start, stop, strict=True))
    every = [v.numpy() for v in model.variables if v is not model.totals]
    return np.concatenate([np.ravel(v) for v in every]), moved


def main(count, file):
    """Runs in its own process: collectives keep the first group's size."""
    keras.config.set_floatx(FLOATX)
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 4,
    )
    # One strategy for all rows: a second one would number its collectives
    # as the first did.
    strategy = tf.distribute.get_strategy()
    if count > 1:
        devices = [f"CPU:{i}" for i in range(count)]
        strategy = tf.distribute.MirroredStrategy(devices)
    results = {}
    for name, config in objectives().items():
        results[name], results[f"{name} moved"] = train(strategy, config)
    np.savez(file, **results)


@pytest.mark.slow  # traces every row's step in three processes: minutes
def test_every_rows_objective_is_the_same_on_replicas(tmp_path):
    results = {}
    for count in (1, 2, 4):
        file = tmp_path / f"{count}.npz"
        subprocess.run(
            [sys.executable, __file__, str(count), str(file)], check=True
        )
        results[count] = dict(np.load(file))
    assert results[1].keys() == results[2].keys() == results[4].keys()
    assert len(results[1]) >= 2 * 8
    for name, one in results[1].items():
        if name.endswith("moved"):
            assert one > 100 * TOLERANCE, name
            continue
        for count in (2, 4):
            np.testing.assert_allclose(
                results[count][name],
                one,
                rtol=0,
                atol=TOLERANCE,
                err_msg=name,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
