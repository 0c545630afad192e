"""Labelled images from a hostile world: named, set aside or told off."""

import io
import os
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vivi_keras.data import image_batches, image_folder, image_sources, labelled
from vivi_keras.data.image_sources import from_tfds, open_images

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def file_of(image, form="PNG", **arguments):
    file = io.BytesIO()
    image.save(file, form, **arguments)
    return file.getvalue()


def write(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        file_of(Image.fromarray(PICTURE)) if content is None else content
    )


@pytest.fixture
def pets(tmp_path):
    """Two classes of three images, and a test split."""
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            for k in range(count):
                write(tmp_path / "pets" / split / name / f"{k}.png")
    return tmp_path / "pets"


# Pictures of every kind


def test_a_palette_is_looked_up_also_with_a_transparent_colour():
    image = Image.fromarray(PICTURE).quantize(8)
    np.testing.assert_array_equal(
        labelled.decode_rgb(file_of(image)), np.asarray(image.convert("RGB"))
    )
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) == 3] = 0  # black shows through
    np.testing.assert_array_equal(
        labelled.decode_rgb(file_of(image, transparency=3)), expected
    )


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(form):
    first, second = (np.full((6, 9, 3), v, np.uint8) for v in (200, 30))
    content = file_of(
        Image.fromarray(first),
        form,
        save_all=True,
        append_images=[Image.fromarray(second)],
        **({"lossless": True} if form == "WEBP" else {}),
    )
    np.testing.assert_array_equal(labelled.decode_rgb(content), first)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file_of(Image.fromarray(PICTURE), exif=exif)
    # Where the stored top left corner and its right neighbour are shown.
    places = [np.asarray(PICTURE[0, k]).tolist() for k in (0, 1)]
    corner, step = {
        1: ((0, 0), (0, 1)),
        2: ((0, -1), (0, -1)),
        3: ((-1, -1), (0, -1)),
        4: ((-1, 0), (0, 1)),
        5: ((0, 0), (1, 0)),
        6: ((0, -1), (1, 0)),
        7: ((-1, -1), (-1, 0)),
        8: ((-1, 0), (-1, 0)),
    }[orientation]
    shown = labelled.decode_rgb(content)
    assert shown.shape == ((6, 9, 3) if orientation < 5 else (9, 6, 3))
    beside = tuple(np.add(corner, step))
    assert [shown[corner].tolist(), shown[beside].tolist()] == places


def test_a_damaged_exif_block_does_not_cost_the_picture():
    content = file_of(Image.fromarray(PICTURE), exif=b"Exif\0\0MM\0*\xff\xff")
    np.testing.assert_array_equal(labelled.decode_rgb(content), PICTURE)


@pytest.mark.parametrize(
    "image, message",
    [
        (Image.fromarray(np.full((4, 5), 70_000, np.int32)), "70000"),
        (Image.fromarray(np.full((4, 5), 0.5, np.float32)), "Got: floats"),
    ],
)
def test_pixels_of_no_known_range_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        labelled.decode_rgb(file_of(image, "TIFF"))


def test_sixteen_bits_and_one_bit_keep_their_brightness():
    deep = Image.fromarray(np.array([[0, 0x80FF, 0xFFFF]], np.uint16))
    assert labelled.decode_rgb(file_of(deep))[0, :, 1].tolist() == [0, 128, 255]
    flat = Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1")
    assert labelled.decode_rgb(file_of(flat))[0, :, 1].tolist() == [0, 255, 255]


# Folders


def test_files_that_are_no_images_are_set_aside_and_counted(pets):
    folder = pets / "train"
    write(folder / "cat" / "cut.png", file_of(Image.fromarray(PICTURE))[:60])
    write(folder / "cat" / "empty.jpg", b"")
    write(folder / "cat" / "notes.txt", b"who is who")
    write(folder / "stray.png")
    write(folder / ".git" / "index.png")
    write(folder / "cat" / ".DS_Store", b"hidden")
    (folder / "dog" / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "dog" / "pipe.png")
    write(folder / "dog" / "puppies" / "4.PNG")  # a class may have folders
    images = open_images(str(pets))
    assert images.skipped == {
        "stray.png": "not in the folder of a class",
        "cat/cut.png": images.skipped["cat/cut.png"],
        "cat/empty.jpg": images.skipped["cat/empty.jpg"],
        "cat/notes.txt": "its name does not end like an image's",
        "dog/gone.png": "not a file, or a broken link",
        "dog/pipe.png": "not a file, or a broken link",
    }
    assert "truncated" in images.skipped["cat/cut.png"].lower()
    assert "no image that Pillow" in images.skipped["cat/empty.jpg"]
    assert images.labels.tolist() == [0] * 3 + [1] * 4


def test_links_to_folders_do_not_multiply_images(pets, tmp_path):
    folder = pets / "train"
    (folder / "cat" / "up").symlink_to("..")  # round in a circle
    (folder / "cat" / "twin").symlink_to("../dog")  # another class
    (folder / "cat" / "3.png").symlink_to("0.png")  # a file may be a link
    for k in range(2):
        write(tmp_path / "elsewhere" / f"{k}.png")
    (folder / "owl").symlink_to(tmp_path / "elsewhere")  # so may a class
    images = open_images(str(pets))
    assert images.labels.tolist() == [0] * 4 + [1] * 3 + [2] * 2
    assert images.skipped == {
        "cat/up": "a link to a folder",
        "cat/twin": "a link to a folder",
    }


def test_any_file_name_is_read_and_can_be_shown(pets):
    odd = [b"a cat.png", b"two\nlines.png", b"caf\xe9.png", "写真.png".encode()]
    bytes_of = os.fsencode(pets / "train" / "cat")
    for name in odd:
        write(pets / "train" / "cat" / os.fsdecode(name))
    with open(os.path.join(bytes_of, b"bad\xff\n.png"), "wb"):
        pass
    os.rename(bytes_of, os.path.dirname(bytes_of) + b"/c\xe9t")
    images = open_images(str(pets))
    assert images.class_names == (r"c\xe9t", "dog")
    assert [*images.skipped] == [r"c\xe9t/bad\xff\n.png"]
    assert images.labels.tolist() == [0] * 7 + [1] * 3
    for index in range(len(images)):
        np.testing.assert_array_equal(images.read(index), PICTURE)


def test_folders_that_hold_no_classes_are_told_apart(pets, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty', which has none and 0 images"):
        open_images(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="none and 3 images. Each class needs"):
        open_images(str(pets / "train" / "cat"))
    with pytest.raises(ValueError, match="at least 2 images.*0 of 'owl'"):
        (pets / "train" / "owl").mkdir()
        open_images(str(pets))
    write(pets / "train" / "owl" / "one.png")
    with pytest.raises(ValueError, match="at least 2 images.*1 of 'owl'"):
        open_images(str(pets))


@pytest.mark.parametrize("source", ["", "fashion-mnist", "/no/such"])
def test_unknown_sets_are_told_what_is_known(source):
    with pytest.raises(
        ValueError, match=f"'tfds:NAME' or.*'{source}', which is not"
    ):
        open_images(source)


def test_a_split_that_is_missing_is_not_taken_for_a_class(pets):
    with pytest.raises(ValueError, match=r"'val' .*Got: \['test', 'train'\]"):
        open_images(str(pets), "val")
    (pets / "train").rename(pets / "training")
    with pytest.raises(ValueError, match=r"'train' .*'test', 'training'\]"):
        open_images(str(pets))
    # A class may have the name of a split.
    vehicles = pets / "vehicles"
    for name in ("train", "van"):
        for k in range(2):
            write(vehicles / name / f"{k}.png")
    assert open_images(str(vehicles)).class_names == ("train", "van")


def test_labels_of_a_test_split_are_those_of_training(pets):
    for k in range(2):
        write(pets / "train" / "cow" / f"{k}.png")
    names = open_images(str(pets)).class_names
    assert names == ("cat", "cow", "dog")
    tests = open_images(str(pets), "test", names)  # no cow there
    assert tests.labels.tolist() == [0, 0, 2, 2]
    assert tests.class_names == names
    write(pets / "test" / "eel" / "0.png")
    with pytest.raises(ValueError, match=r"Got: also \['eel'\]"):
        open_images(str(pets), "test", names)


def test_a_file_that_goes_bad_later_is_named(pets):
    images = image_folder.from_folder(pets / "train")
    write(pets / "train" / "dog" / "0.png", b"overwritten")
    with pytest.raises(
        ValueError, match=r"dog/0.png cannot be read: no image that"
    ):
        images.read(3)
    os.remove(pets / "train" / "dog" / "1.png")
    with pytest.raises(ValueError, match=r"dog/1.png cannot be read: .*No su"):
        images.read(4)


# Labels


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 1, None, 1], "an integer for each image. Got: object"),
        ([0, 1, np.nan, 1], "an integer for each image. Got: float64"),
        (["cat", "dog", "cat", "dog"], "an integer for each image. Got: <U3"),
        (np.eye(4, dtype=int), r"Got: int64 \[4, 4\]"),
        ([0, 1, -1, 1], r"labels must be in \[0, 2\). Got: \[-1\]"),
        ([0, 1, 0], "4 images and 3 labels"),
    ],
)
def test_labels_that_are_missing_or_no_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        labelled.from_arrays([PICTURE] * 4, labels)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan"), 10])
def test_fractions_out_of_range_are_refused(fraction):
    images = labelled.from_arrays([PICTURE] * 4, [0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\]"):
        labelled.take_fraction(images, fraction)


def test_a_batch_may_be_larger_than_the_set():
    pictures = [np.full((9, 9), 40 * k, np.uint8) for k in range(4)]
    images = labelled.from_arrays(pictures, [0, 0, 1, 1])
    dataset = image_batches.labelled_batches(images, 10, 8, num_steps=2)
    values = np.concatenate([b["image"][:, 0, 0, 0] for b in dataset])
    assert np.bincount(values // 40).tolist() == [5] * 4


# TFDS


def write_tfds(folder, features, examples, file_format="array_record"):
    """A prepared data set; examples: split -> list of dicts."""
    folder.mkdir()
    features = tfds.features.FeaturesDict(features)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="pets",
        version="1.0.0",
        data_dir=str(folder),
        module_name="test_data_sources",
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, 9, file_format=file_format)
    writer.initialize_splits([*examples])
    writer.add_examples(
        {
            split: [features.encode_example(example) for example in some]
            for split, some in examples.items()
        }
    )
    writer.close_all()
    return str(folder)


LABELLED = {
    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
    "label": tfds.features.ClassLabel(names=["cat", "dog", "owl"]),
}


def examples_of(*labels):
    return [
        {"image": PICTURE + np.uint8(label), "label": label} for label in labels
    ]


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_tfds_folder_is_read_by_split(tmp_path, file_format):
    folder = write_tfds(
        tmp_path / "set",
        LABELLED,
        {
            "train": examples_of(0, 1, 2, 2, 1, 0),
            "test": examples_of(2, 2, 0, 0),
        },
        file_format,
    )
    images = open_images(folder)
    assert images.class_names == ("cat", "dog", "owl")
    assert sorted(images.labels) == [0, 0, 1, 1, 2, 2]
    for index, label in enumerate(images.labels):
        np.testing.assert_array_equal(
            images.read(index), PICTURE + np.uint8(label)
        )
    tests = open_images(folder, "test", images.class_names)  # no dog there
    assert sorted(tests.labels) == [0, 0, 2, 2]
    assert len(open_images(folder, "train+test")) == 10
    with pytest.raises(ValueError, match="0 of 'dog'"):
        open_images(folder, "test")
    with pytest.raises(ValueError, match=r"'train'\] or a part.*Got: 'val'"):
        open_images(folder, "val")
    with pytest.raises(ValueError, match=r"classes \('a', 'b'\). Got"):
        open_images(folder, "test", ("a", "b"))


@pytest.mark.parametrize(
    "features, example",
    [
        ({"image": LABELLED["image"]}, {"image": PICTURE}),
        (
            {
                **LABELLED,
                "label": tfds.features.Tensor(shape=(2,), dtype=np.int64),
            },
            {"image": PICTURE, "label": np.array([0, 1])},
        ),
        ({"label": LABELLED["label"]}, {"label": 1}),
    ],
)
def test_a_tfds_set_without_image_or_label_is_refused(
    tmp_path, features, example
):
    folder = write_tfds(tmp_path / "set", features, {"train": [example]})
    with pytest.raises(
        ValueError, match="^'.*' must .*'label' .ClassLabel.. Got: {"
    ):
        open_images(folder)


@pytest.fixture
def damaged_set(tmp_path):
    """A TFDS data set with one damaged image, of class 1 of 3."""
    write(tmp_path / "cut.png", file_of(Image.fromarray(PICTURE))[:60])
    examples = examples_of(0, 0, 1, 1, 1, 2, 2)
    examples[2]["image"] = str(tmp_path / "cut.png")  # stored as it is
    return write_tfds(tmp_path / "set", LABELLED, {"train": examples})


def test_a_damaged_image_of_a_tfds_set_is_set_aside(damaged_set):
    images = open_images(damaged_set)
    ((name, reason),) = images.skipped.items()
    assert re.fullmatch(r"image [0-6] of split 'train'", name)
    assert "truncated" in reason
    assert sorted(images.labels) == [0, 0, 1, 1, 2, 2]
    for index, label in enumerate(images.labels):
        np.testing.assert_array_equal(
            images.read(index), PICTURE + np.uint8(label)
        )


def test_a_damaged_image_of_a_large_tfds_set_is_named(damaged_set, monkeypatch):
    monkeypatch.setattr(image_sources, "MOST_BYTES_CHECKED", 0)
    images = open_images(damaged_set)
    assert len(images) == 7 and not images.skipped
    damaged = []
    for index in range(7):
        try:
            images.read(index)
        except ValueError as error:
            damaged.append(str(error))
            assert f"Image {index} of split 'train' of" in damaged[0]
    assert len(damaged) == 1


def test_an_unprepared_tfds_set_is_told_how_to_prepare(tmp_path):
    with pytest.raises(ValueError, match="not prepared in .*tfds build mnist"):
        from_tfds("mnist", data_dir=str(tmp_path))
