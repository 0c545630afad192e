"""Labelled images: any kind of file, label fractions, exact batches."""

import numpy as np
import pytest
from PIL import Image

from vivi_keras.data import augment as augment_lib
from vivi_keras.data import image_batches, image_folder, image_sources, labelled


def make_images(num_images=12, num_classes=3):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (num_images, 20, 30), np.uint8)
    images[:, :, :] = np.arange(num_images)[:, None, None] * 20
    return images, np.arange(num_images) % num_classes


def take(images, num_steps=1, batch_size=4, **arguments):
    return list(
        image_batches.labelled_batches(
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
    images = image_folder.from_folder(tmp_path)
    assert images.class_names == ("cat", "dog")
    assert set(images.skipped) == {"dog/cut.jpg", "dog/text.png"}
    assert images.labels.tolist() == [0] * 4 + [1] * 4
    values = [int(images.read(i).mean().round()) for i in range(4)]
    np.testing.assert_allclose(values, [50, 100, 100, 100], atol=1)


def test_bad_input_is_named(tmp_path):
    arrays, labels = make_images()
    with pytest.raises(ValueError, match=r"\[0, 2\). Got: \[2\]"):
        labelled.from_arrays(arrays, labels, ["a", "b"])
    with pytest.raises(ValueError, match="12 images and 3 labels"):
        labelled.from_arrays(arrays, labels[:3])
    with pytest.raises(ValueError, match="at least 2 images.*1 of '2'"):
        labelled.from_arrays(arrays[:5], labels[:5])
    with pytest.raises(ValueError, match="none"):
        image_folder.from_folder(tmp_path)
    with pytest.raises(ValueError, match="split.*'valid'"):
        image_sources.fashion_mnist("valid")
    with pytest.raises(ValueError, match="dataset-fashion-mnist"):
        image_sources.fashion_mnist("test", tmp_path)
    with pytest.raises(ValueError, match="float64"):
        labelled.to_rgb(np.zeros((4, 4)))


def test_mixed_batches_hold_both():
    images = labelled.from_arrays(*make_images())
    first = image_batches.labelled_batches(images, 4, 16, num_steps=2)
    videos = first.map(lambda batch: {"video_id": batch["label"]})
    batch = next(image_batches.mixed_batches(videos, first).as_numpy_iterator())
    assert set(batch) == {"video_id", "image", "label"}
    np.testing.assert_array_equal(batch["video_id"], batch["label"])


def test_unlabelled_rows_follow_the_labelled_ones_in_every_shard():
    arrays, labels = make_images()
    few = labelled.from_arrays(arrays[:6], labels[:6])
    rest = labelled.from_arrays(arrays, labels)
    arguments = {"unlabelled": rest, "unlabelled_batch_size": 6}
    whole = take(few, 2, 2, **arguments)
    for batch in whole:
        assert (batch["label"][:2] >= 0).all()
        assert (batch["label"][2:] == -1).all()
        index = batch["image"][:2].mean(axis=(1, 2, 3)) / 20
        np.testing.assert_array_equal(index % 3, batch["label"][:2])
    seen = np.concatenate([b["image"][2:, 0, 0, 0] // 20 for b in whole])
    assert sorted(seen) == list(range(12))  # an epoch of the unlabelled
    parts = [take(few, 2, 2, shard=(i, 4), **arguments) for i in range(4)]
    for step, batch in enumerate(whole):
        for name in ("image", "label"):
            np.testing.assert_array_equal(
                np.concatenate([part[step][name] for part in parts]),
                batch[name],
            )


def test_copies_are_independent_views_and_the_first_is_the_only_one():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 40, 50), np.uint8)
    images = labelled.from_arrays(pixels, np.arange(12) % 3)
    one = take(images, 2)[1]["image"]
    views = take(images, 2, copies=3)[1]["image"]
    assert views.shape == (4, 3, 16, 16, 3)
    np.testing.assert_array_equal(views[:, 0], one)
    differences = np.abs(np.diff(views.astype(int), axis=1)).mean((2, 3, 4))
    assert (differences > 5).all()


def test_rand_augment_is_a_pure_function_and_uses_every_operation():
    image = np.asarray(
        Image.linear_gradient("L").resize((20, 16)).convert("RGB")
    ).copy()
    image[3:9, 4:15] = (200, 40, 90)
    names = [*augment_lib.OPERATIONS]
    for place, name in enumerate(names):
        draws = [(place + 0.5) / len(names), 0.1, 0.01, 0.1]  # then identity
        changed = augment_lib.rand_augment(image, draws)
        np.testing.assert_array_equal(
            changed, augment_lib.rand_augment(image, draws)
        )
        assert changed.shape == image.shape and changed.dtype == np.uint8
        same = np.array_equal(changed, image)
        assert same == (name == "identity"), name
    images = labelled.from_arrays(np.stack([image] * 6), np.arange(6) % 3)
    plain, augmented, again = (
        take(images, crop=None, augment=augment)[0]["image"]
        for augment in (None, "rand_augment", "rand_augment")
    )
    np.testing.assert_array_equal(augmented, again)
    assert (augmented != plain).any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"augment": "auto"},
            "augment must be one of rand_augment, None. Got: 'auto'",
        ),
        ({"copies": 0}, "copies must be an int of at least 1. Got: 0"),
        (
            {"unlabelled_batch_size": 4},
            "unlabelled must be given, since .* is 4",
        ),
    ],
)
def test_arguments_of_batches_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        take(labelled.from_arrays(*make_images()), **arguments)


def test_open_images_finds_folders_splits_and_tfds_folders(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                Image.fromarray(np.full((9, 9, 3), 40 * k, np.uint8)).save(
                    folder / f"{k}.png"
                )
    pets = str(tmp_path / "pets")
    assert len(image_sources.open_images(pets)) == 6
    assert len(image_sources.open_images(pets, "test")) == 4
    assert len(image_sources.open_images(pets + "/train")) == 6
    with pytest.raises(ValueError, match="folder 'val' of class folders"):
        image_sources.open_images(pets, "val")
    with pytest.raises(ValueError, match="'.*nowhere', which is not a folder"):
        image_sources.open_images(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="name of a TFDS data set. Got: 'no_s"):
        image_sources.open_images("tfds:no_such_set_at_all")
