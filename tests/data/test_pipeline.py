"""Threads load the same batches as tf.data does."""

import os
import subprocess
import sys

import data_helpers
import keras
import numpy as np
import pytest

from vivi_keras import data
from vivi_keras.data import image_batches, labelled, pipeline


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    sizes = ([3, 1], [4, 2, 5], [1], [2, 2, 2, 6, 1])
    return data_helpers.write_dataset(
        tmp_path_factory.mktemp("videos"),
        [data_helpers.video_example(v, sizes[v % 4]) for v in range(9)],
    )


def images():
    pixels = np.random.default_rng(0).integers(
        0, 256, (11, 30, 24, 3), np.uint8
    )
    return labelled.from_arrays(pixels, np.arange(11) % 3)


def make(kind, dataset, num_steps):
    place = {"first_step": 7, "num_steps": num_steps, "shard": (1, 2)}
    videos = data.video_batches(dataset, 4, image_size=(24, 32), **place)
    if kind == "videos":
        return videos
    if kind == "ordered":
        return image_batches.ordered_batches(images(), 4, 24)
    labels = data.labelled_batches(
        images(),
        6,
        image_size=24,
        unlabelled=images(),
        unlabelled_batch_size=2,
        copies=2,
        augment="rand_augment",
        **place,
    )
    return labels if kind == "images" else data.mixed_batches(videos, labels)


@pytest.mark.parametrize("kind", ["videos", "images", "mixed", "ordered"])
def test_threads_load_what_tf_data_loads(kind, dataset):
    expected = [*make(kind, dataset, 3).as_numpy_iterator()]
    spec = make(kind, dataset, 3).element_spec
    with pipeline.without_tf_data():
        batches = make(kind, dataset, 3)
    assert isinstance(batches, keras.utils.PyDataset)
    assert batches.num_batches == 3
    found = [*batches]
    for batch, other in zip(found, expected, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            assert batch[name].dtype == other[name].dtype
            np.testing.assert_array_equal(batch[name], other[name])
    for name, array in batches.load(1).items():
        np.testing.assert_array_equal(array, expected[1][name])
    for name, part in batches.element_spec.items():
        assert part.shape == tuple(spec[name].shape)
        assert part.dtype == spec[name].dtype.name


class Seen(keras.Model):
    """Keeps the batches that `fit` gives it, in order."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def train_step(self, batch):
        self.kept.append(batch["video_id"].numpy())
        return {"loss": 0.0}


@pytest.mark.parametrize("num_steps", [6, 60, None])
def test_fit_takes_them_in_order(num_steps, dataset, monkeypatch):
    """Also if an epoch ends long before the data, where Keras's own threads
    would begin with the first batch again."""
    expected = make("videos", dataset, 6)
    expected = [batch["video_id"] for batch in expected.as_numpy_iterator()]
    monkeypatch.setattr(
        pipeline, "batches", lambda rows: pipeline.ThreadedBatches([rows], 3)
    )
    model = Seen()
    model.compile("sgd", run_eagerly=True)
    model.fit(
        make("videos", dataset, num_steps),
        steps_per_epoch=2,
        epochs=3,
        shuffle=False,
        verbose=0,
    )
    np.testing.assert_array_equal(model.kept, expected)


def test_a_row_that_cannot_be_loaded_is_told():
    def load(position):
        if position == 5:
            raise KeyError("row 5")
        return {"x": np.array(position)}

    spec = {"x": ((), "int64")}
    rows = pipeline.Rows(load, spec, 2, range(2), first_step=1, num_steps=4)
    batches = pipeline.ThreadedBatches([rows])
    np.testing.assert_array_equal(batches[0]["x"], [2, 3])
    with pytest.raises(pipeline.CannotLoad, match="row 5"):
        batches[1]
    np.testing.assert_array_equal(batches[3]["x"], [8, 9])
    with pytest.raises(IndexError, match="4 batches"):
        batches[4]


ON_JAX = """
import sys
import numpy as np
from vivi_keras import data
batch = data.video_batches(sys.argv[1], 4, image_size=24, copies=2)[3]
frames = batch["frames"][:, 0, 0, 0]
views = data.colour_views(frames, (5, 3), grey=0.5, blur=0.9)
np.savez(sys.argv[2], views=np.asarray(views), **batch)
"""


def test_jax_gets_the_same_batches_and_colours(dataset, tmp_path):
    pytest.importorskip("jax")
    subprocess.run(
        [sys.executable, "-c", ON_JAX, dataset, tmp_path / "b.npz"],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        check=True,
    )
    found = dict(np.load(tmp_path / "b.npz"))
    views = found.pop("views")
    batches = data.video_batches(
        dataset, 4, image_size=24, copies=2, first_step=3, num_steps=1
    )
    (expected,) = batches.as_numpy_iterator()
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])
    expected = data.colour_views(
        expected["frames"][:, 0, 0, 0], (5, 3), grey=0.5, blur=0.9
    )
    np.testing.assert_allclose(views, expected, atol=1e-5)
