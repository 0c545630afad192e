"""Labelled images in a folder of class folders."""

import concurrent.futures
import pathlib

import numpy as np

from vivi_keras.data.labelled import checked, decode_rgb
from vivi_keras.files import printable_path

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def from_folder(directory, class_names=None):
    """Labelled images from a folder that holds one folder per class.

    Every file is decoded once, in threads, to check it. These are set aside,
    with the reason: files that cannot be decoded, names that end in none of
    `EXTENSIONS`, images beside the class folders, and links to folders within
    a class (a class folder itself may be a link, and so may files). Hidden
    files and folders (names that begin with a dot) are ignored.

    Args:
        directory: path.
        class_names: None for the folders' names in order, or names that labels
            are indices into; then a class may have no folder.
    Returns: LabelledImages; `skipped` names the files set aside.
    Raises: ValueError: there is no such folder, it has no class folder or one
        that is not in `class_names`, or, if these are not given, a class has
        fewer than 2 images.
    """
    directory = pathlib.Path(directory)
    folders = _class_folders(directory)
    names = [*folders] if class_names is None else [*class_names]
    strange = [name for name in folders if name not in names]
    if strange:
        raise ValueError(
            f"{str(directory)!r} must have only folders of the classes"
            f" {names[:5]}. Got: also {strange[:5]}"
        )
    files = [
        (path, names.index(name))
        for name, folder in folders.items()
        for path in _files(folder)
    ]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        troubles = [*pool.map(_trouble, [path for path, _ in files])]
    skipped = {
        printable_path(
            path.relative_to(directory)
        ): "not in the folder of a class"
        for path in sorted(directory.iterdir())
        if path.suffix.lower() in EXTENSIONS and path.is_file()
    }
    kept = []
    for file, trouble in zip(files, troubles, strict=True):
        if trouble is None:
            kept.append(file)
        else:
            skipped[printable_path(file[0].relative_to(directory))] = trouble
    if not kept:
        raise ValueError(
            f"{str(directory)!r} must have images in the class folders"
            f" {names[:5]}. Got: none, and {len(skipped)} files set"
            f" aside{_first(skipped)}"
        )
    return checked(
        lambda index: _read(kept[index][0]),
        np.array([label for _, label in kept], np.int64),
        tuple(names),
        skipped,
        least=2 if class_names is None else 0,
    )


def _first(skipped):
    """The first file set aside and its reason, as the end of a sentence."""
    for name, reason in skipped.items():
        return f", such as {name}: {reason}"
    return ""


def _class_folders(directory):
    """Dict of name -> folder of each class, in the order of the folders."""
    if not directory.is_dir():
        raise ValueError(
            "directory must be a folder of class folders. Got:"
            f" {str(directory)!r}, which is not a folder"
        )
    folders = [p for p in sorted(directory.iterdir()) if p.is_dir()]
    folders = {
        printable_path(path.name): path
        for path in folders
        if not _is_hidden(path)
    }
    if not folders:
        images = sum(
            p.suffix.lower() in EXTENSIONS for p in directory.iterdir()
        )
        raise ValueError(
            "directory must be a folder of class folders. Got:"
            f" {str(directory)!r}, which has none and {images} images. Each"
            " class needs a folder of its own."
        )
    return folders


def _files(folder):
    """Yields the files in a class folder and its subfolders, in fixed order.

    A link to a folder is yielded, not followed: it may lead back to a parent
    folder, or to the images of another class.
    """
    for path in sorted(folder.iterdir()):
        if _is_hidden(path):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        else:
            yield path


def _is_hidden(path):
    return path.name.startswith(".")


def _trouble(path):
    """Why a file is set aside, or None."""
    if path.is_dir():
        return "a link to a folder"
    if path.suffix.lower() not in EXTENSIONS:
        return "its name does not end like an image's"
    if not path.is_file():
        return "not a file, or a broken link"
    try:
        _read(path)
    except ValueError as error:
        return str(error.__cause__)
    return None


def _read(path):
    """The pixels of a file; a ValueError names the file."""
    try:
        return decode_rgb(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The image {printable_path(path)} cannot be read: {error}"
        ) from error
