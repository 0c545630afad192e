"""Fine-tuning a classifier: taken only if better on held-out videos."""

import json
import shutil

import cv2
import evaluation_modules
import numpy as np
import pytest
import tensorflow as tf

from vivi_keras import archive
from vivi_keras.archive import classify, search
from vivi_keras.data import range_labels
from vivi_keras.export.classifier import export_classifier


class Weak(tf.__internal__.tracking.AutoTrackable):
    """Features that hardly depend on red and green, and much on blue.

    Kept as float16, they tell of blue alone; with a stronger weight on red and
    green, they would tell the classes.
    """

    def __init__(self):
        super().__init__()
        start = np.random.default_rng(0).normal(size=(3, 6))
        start[:2] *= 1e-5
        self.kernel = tf.Variable(start.astype(np.float32), name="kernel")
        self.variables = self.trainable_variables = [self.kernel]
        self.regularization_losses = []

    @tf.function
    def __call__(self, images, training=False):
        return tf.reduce_mean(images, axis=(1, 2)) @ self.kernel


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """`images`, red or green ones of any blue, their `index` and labels."""
    folder = tmp_path_factory.mktemp("coloured")
    generator = np.random.default_rng(1)
    rows = ["path,label"]
    for number in range(28):
        red = number % 2
        colour = generator.uniform(0, 255), 60 + 130 * (1 - red), 60 + 130 * red
        image = np.clip(colour + generator.normal(0, 9, (20, 28, 3)), 0, 255)
        path = folder / "images" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image.astype(np.uint8))
        rows.append(f"{path.name},{'red' if red else 'green'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    evaluation_modules.save(folder / "module", Weak())
    archive.embed(
        folder / "module",
        folder / "index",
        images=folder / "images",
        image_size=16,
    )
    return folder


def fitted(folder):
    index = archive.open_index(folder / "index")
    labelled = range_labels.join(index.footage, folder / "labels.csv")
    encoder = search.open_encoder(index)
    return index, labelled, classify.fit(index, labelled), encoder


def test_it_is_taken_if_better_and_needs_its_own_index(coloured, tmp_path):
    index, labelled, frozen, encoder = fitted(coloured)
    before = [variable.numpy() for variable in encoder.variables]
    tuned = classify.finetune(
        index, labelled, frozen, encoder, epochs=200, learning_rate=0.5
    )
    assert frozen.accuracy < 0.8 and tuned.accuracy > 0.9
    assert tuned.accuracy == np.trace(tuned.confusion) / 28
    assert tuned.confusion.sum(axis=1).tolist() == [14, 14]
    assert tuned.notes[-1] == (
        f"fine-tuned: on held-out videos {100 * tuned.accuracy:.1f} %"
        f" fine-tuned and {100 * frozen.accuracy:.1f} % with the encoder as it"
        " was"
    )
    # The encoder given has its own weights again.
    for variable, value in zip(encoder.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert np.abs(tuned.variables[0] - before[0]).max() > 0.01
    module = tmp_path / "tuned"
    export_classifier(
        encoder.path,
        module,
        tuned.head.kernel,
        tuned.head.bias,
        tuned.head.class_names,
        variables=tuned.variables,
    )
    metadata = json.loads((module / "assets.extra/vivi.json").read_text())
    assert "encoder_sha256" not in metadata
    with pytest.raises(ValueError, match=f"run vivi-embed --module={module}"):
        classify.read_head(index, module)
    archive.embed(
        module, tmp_path / "index", images=coloured / "images", image_size=16
    )
    own = archive.open_index(tmp_path / "index")
    classes, _ = classify.predict(own, classify.read_head(own, module))
    wanted = [number % 2 for number in range(28)]
    names = own.shots["video"].tolist()
    assert [int(name[:2]) % 2 for name in names] == [*classes]
    assert sorted(classes.tolist()) == sorted(wanted)


def test_it_is_left_if_not_better(coloured):
    index, labelled, frozen, encoder = fitted(coloured)
    left = classify.finetune(
        index, labelled, frozen, encoder, epochs=1, learning_rate=1e-9
    )
    assert left.head is frozen.head and left.variables is None
    assert left.notes[:-1] == frozen.notes
    assert left.notes[-1].startswith("not fine-tuned: on held-out videos")


def test_what_it_needs(coloured, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(coloured, folder)
    index, labelled, frozen, encoder = fitted(folder)
    path = tmp_path / "two.csv"
    path.write_text("path,label\n00.png,green\n01.png,red\n")
    few = range_labels.join(index.footage, path)
    alone = classify.finetune(index, few, classify.fit(index, few), encoder)
    assert "no held-out video can tell" in alone.notes[-1]
    manifest = json.loads((folder / "index" / "index.json").read_text())
    manifest["source"]["path"] = str(folder / "gone")
    (folder / "index" / "index.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="frames of .*gone moved"):
        classify.finetune(
            archive.open_index(folder / "index"), labelled, frozen, encoder
        )


def test_a_fold_without_a_class_gives_it_no_logit(coloured):
    index, labelled, _, _ = fitted(coloured)
    data = classify._Data(index, labelled)
    head = data.fit(np.arange(28), 1.0).head(("green", "red", "unseen"))
    logits = head.logits(index.vectors)
    assert logits.shape == (28, 3)
    assert (logits[:, 2] < logits[:, :2].max(axis=1)).all()
