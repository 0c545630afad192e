"""Labelled images: any kind of file, label fractions, exact batches."""

import numpy as np
import pytest
from PIL import Image

from vivi_keras.data import labelled, pixels


def make_images(num_images=12, num_classes=3):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (num_images, 20, 30), np.uint8)
    images[:, :, :] = np.arange(num_images)[:, None, None] * 20
    return images, np.arange(num_images) % num_classes


def take(images, num_steps=1, batch_size=4, **arguments):
    return list(
        labelled.labelled_batches(
            images, batch_size, 16, num_steps=num_steps, **arguments
        ).as_numpy_iterator()
    )


def test_batches_are_exact_and_labels_match():
    images = labelled.from_arrays(*make_images())
    whole = take(images, 6)
    later_batches = take(images, 4, first_step=2)
    for batch, later in zip(whole[2:], later_batches, strict=True):
        np.testing.assert_array_equal(batch["image"], later["image"])
        np.testing.assert_array_equal(batch["label"], later["label"])
    for batch in whole:
        indices = batch["image"].mean(axis=(1, 2, 3)) / 20
        np.testing.assert_array_equal(indices % 3, batch["label"])
    epoch = np.concatenate([b["image"][:, 0, 0, 0] for b in whole[:3]])
    assert sorted(epoch // 20) == list(range(12))
    halves = [take(images, 1, shard=(i, 2))[0]["image"] for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves), whole[0]["image"])


def test_fraction_is_stratified_fixed_and_recorded():
    arrays, labels = make_images(60, 3)
    images = labelled.from_arrays(arrays, labels)
    part = labelled.take_fraction(images, 0.1, seed=1)
    assert np.bincount(part.labels).tolist() == [2, 2, 2]
    again = labelled.take_fraction(images, 0.1, seed=1)
    other = labelled.take_fraction(images, 0.1, seed=2)
    assert part.record == again.record and part.record["num_labels"] == 6
    assert part.record["indices_sha256"] != other.record["indices_sha256"]
    with pytest.raises(ValueError, match="20 of '0' leaves none"):
        labelled.take_fraction(images, 0.01)


def test_folder_takes_all_kinds_and_sets_damaged_files_aside(tmp_path):
    grey = np.full((10, 12), 100, np.uint8)
    for name in ("cat", "dog"):
        folder = tmp_path / name
        folder.mkdir()
        Image.fromarray(grey).save(folder / "grey.png")
        rgba = np.dstack([grey, grey, grey, np.full_like(grey, 128)])
        Image.fromarray(rgba).save(folder / "alpha.png")
        Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
        Image.fromarray(np.dstack([grey] * 3)).convert("CMYK").save(
            folder / "cmyk.jpg", quality=100
        )
    whole = (tmp_path / "dog" / "cmyk.jpg").read_bytes()
    (tmp_path / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "dog" / "text.png").write_text("not an image")
    images = labelled.from_folder(tmp_path)
    assert images.class_names == ("cat", "dog")
    assert set(images.skipped) == {"dog/cut.jpg", "dog/text.png"}
    assert images.labels.tolist() == [0] * 4 + [1] * 4
    values = [int(images.read(i).mean().round()) for i in range(4)]
    np.testing.assert_allclose(values, [50, 100, 100, 100], atol=1)


def test_bad_input_is_named(tmp_path):
    arrays, labels = make_images()
    with pytest.raises(ValueError, match=r"\[0, 2\); got \[2\]"):
        labelled.from_arrays(arrays, labels, ["a", "b"])
    with pytest.raises(ValueError, match="12 images and 3 labels"):
        labelled.from_arrays(arrays, labels[:3])
    with pytest.raises(ValueError, match="at least 2 images.*'2' has 1"):
        labelled.from_arrays(arrays[:5], labels[:5])
    with pytest.raises(ValueError, match="none"):
        labelled.from_folder(tmp_path)
    with pytest.raises(ValueError, match="split.*'valid'"):
        labelled.fashion_mnist("valid")
    with pytest.raises(ValueError, match="dataset-fashion-mnist"):
        labelled.fashion_mnist("test", tmp_path)
    with pytest.raises(ValueError, match="float64"):
        pixels.to_rgb(np.zeros((4, 4)))


def test_mixed_batches_hold_both():
    images = labelled.from_arrays(*make_images())
    first = labelled.labelled_batches(images, 4, 16, num_steps=2)
    videos = first.map(lambda batch: {"video_id": batch["label"]})
    batch = next(labelled.mixed_batches(videos, first).as_numpy_iterator())
    assert set(batch) == {"video_id", "image", "label"}
    np.testing.assert_array_equal(batch["video_id"], batch["label"])
