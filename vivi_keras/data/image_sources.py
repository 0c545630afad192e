"""Sources of labelled images: folders, TFDS, Debian's Fashion-MNIST."""

import concurrent.futures
import gzip
import pathlib

import numpy as np

from vivi_keras import checks
from vivi_keras.data.image_folder import from_folder
from vivi_keras.data.labelled import checked, decode_rgb, from_arrays
from vivi_keras.data.records import split_of
from vivi_keras.files import printable_path

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MOST_BYTES_IN_MEMORY = MOST_BYTES_CHECKED = 4 << 30
_SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation")


def open_images(source, split="train", class_names=None):
    """Opens the labelled images that a config names.

    Args:
        source: "fashion_mnist" (Debian's package); "tfds:NAME", such as
            "tfds:imagenet2012_subset/10pct"; the folder of a prepared TFDS
            data set; or a folder of class folders, or of the folders "train",
            "test" and so on that hold class folders.
        split: split of the data set.
        class_names: None, or the classes of another split: labels are indices
            into them, and a class may have no image.
    Returns: LabelledImages.
    Raises: ValueError: there is no such data set or split, or it has a class
        that is not in `class_names`.
    """
    if source == "fashion_mnist":
        return fashion_mnist(split)
    if source.startswith("tfds:"):
        return from_tfds(source.removeprefix("tfds:"), split, class_names)
    folder = pathlib.Path(source)
    if not source or not folder.is_dir():
        raise ValueError(
            "source must be 'fashion_mnist', 'tfds:NAME' or a folder of"
            f" labelled images. Got: {printable_path(source)!r}, which is not a"
            " folder"
        )
    if (folder / "dataset_info.json").is_file():
        return from_tfds(source, split, class_names)
    splits = [path.name for path in folder.iterdir() if _is_split(path, split)]
    if split in splits:
        return from_folder(folder / split, class_names)
    if splits or split != "train":
        raise ValueError(
            f"{printable_path(source)!r} must have a folder {split!r} of class"
            f" folders. Got: {sorted(splits)}"
        )
    return from_folder(folder, class_names)


def _is_split(path, split):
    """Whether a folder holds a split: a class may also be named "train"."""
    if path.name not in (*_SPLITS, split) or not path.is_dir():
        return False
    return any(inside.is_dir() for inside in path.iterdir())


def from_tfds(name, split="train", class_names=None, data_dir=None):
    """Opens a prepared TFDS data set of examples with an image and a label.

    Args:
        name: TFDS name with its config, such as "imagenet2012_subset/10pct",
            or the folder of a prepared data set.
        split: TFDS split; it may be a slice or a sum.
        class_names: as in `open_images`.
        data_dir: TFDS's data folder; None for its default.
    Returns: LabelledImages, read when needed from the array_record format;
        from other formats the encoded images are held in memory. In a split
        of at most 4 GiB each image is decoded once, in threads, and
        `skipped` names those that cannot be decoded. In a larger split,
        reading a damaged image raises an error that names it.
    Raises: ValueError: there is no such data set or split, or it is not
        prepared, has no image or no label, or is too large for memory.
    """
    import tensorflow_datasets as tfds

    try:
        if (pathlib.Path(name) / "dataset_info.json").is_file():
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise ValueError(
            f"name must be the name of a TFDS data set. Got: {name!r}"
        ) from error
    names = _classes(builder, name)
    if class_names is not None and tuple(class_names) != names:
        raise ValueError(
            f"{name!r} must have the classes {tuple(class_names)[:5]}. Got:"
            f" {names[:5]}"
        )
    source = _examples(builder, name, split)
    checks = builder.info.splits[split].num_bytes <= MOST_BYTES_CHECKED

    def look(index):
        example = source[index]
        return example["label"], _trouble(example) if checks else None

    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = [*pool.map(look, range(len(source)))]
    labels = np.array([label for label, _ in found])
    troubles = [trouble for _, trouble in found]
    kept = [i for i, trouble in enumerate(troubles) if trouble is None]

    def read(index):
        place = kept[index]
        try:
            return decode_rgb(source[place]["image"])
        except ValueError as error:
            raise ValueError(
                f"Image {place} of split {split!r} of {name!r} cannot be"
                f" read: {error}"
            ) from error

    return checked(
        read,
        labels[kept],
        names,
        {
            f"image {place} of split {split!r}": trouble
            for place, trouble in enumerate(troubles)
            if trouble is not None
        },
        least=2 if class_names is None else 0,
    )


def _trouble(example):
    """Why an example is set aside, or None."""
    try:
        decode_rgb(example["image"])
    except ValueError as error:
        return str(error)
    return None


def _classes(builder, name):
    """The class names of a TFDS data set of labelled images."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features)
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        raise ValueError(
            f"{name!r} must be a TFDS data set with the features 'image'"
            " (Image) and 'label' (ClassLabel). Got:"
            f" { {key: type(f).__name__ for key, f in features.items()} }"
        )
    return tuple(label.names)


def _examples(builder, name, split):
    """The examples of a split by number, their images still encoded."""
    import tensorflow_datasets as tfds

    if not builder.info.splits:
        raise ValueError(
            f"{name!r} is not prepared in {builder.data_dir}: run"
            f" 'tfds build {name} --file_format=array_record' first."
        )
    size = split_of(builder, split).num_bytes
    skip = {"image": tfds.decode.SkipDecoding()}
    try:
        return builder.as_data_source(split=split, decoders=skip)
    except NotImplementedError:
        if size > MOST_BYTES_IN_MEMORY:
            raise ValueError(
                f"{name!r} is stored as {builder.info.file_format.value}, which"
                " has no random access, and is too large for memory: prepare"
                " it with file_format='array_record'."
            ) from None
    config = tfds.ReadConfig(interleave_cycle_length=1)
    dataset = builder.as_dataset(split, decoders=skip, read_config=config)
    return list(dataset.as_numpy_iterator())


def fashion_mnist(split="train", directory=FASHION_MNIST):
    """Reads Fashion-MNIST as Debian's dataset-fashion-mnist installs it.

    Args:
        split: "train" or "test".
        directory: folder of the four idx files.
    Returns: LabelledImages.
    Raises: ValueError: there is no such split, or a file is missing.
    """
    prefixes = {"train": "train", "test": "t10k"}
    checks.check_choice("split", split, prefixes)
    arrays = []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        path = pathlib.Path(directory) / f"{prefixes[split]}-{kind}-ubyte.gz"
        if not path.is_file():
            raise ValueError(
                f"{str(directory)!r} must have {path.name}. Install Debian's"
                " package dataset-fashion-mnist."
            )
        content = gzip.decompress(path.read_bytes())
        arrays.append(np.frombuffer(content, np.uint8, offset=header))
    images, labels = arrays
    return from_arrays(images.reshape(-1, 28, 28), labels, FASHION_CLASSES)
