"""Random access to the records of a data set on disk."""

import hashlib
import pathlib

import numpy as np
import tensorflow as tf

FEATURES = ("frames", "shot_index", "video_id")
# Enough of a file's two ends to tell contents apart: the end holds the
# index of the records.
_SAMPLE_BYTES = 1 << 16


class Records:
    """The serialized records of one split, by number.

    Args:
        dataset_dir: folder that `vivi-prepare` or any TFDS builder with the
            same features wrote, in the array_record file format.
        split: TFDS split, for example "train" or "train[:10%]".
        features: names the data set must have.
    Raises: ValueError: there is no such data set or split, or it is in
        another file format, or lacks features.
    """

    def __init__(self, dataset_dir, split="train", features=FEATURES):
        # These import many modules; importing this file should not.
        from array_record.python import array_record_data_source

        self.directory = pathlib.Path(dataset_dir)
        builder = _open_builder(self.directory)
        missing = [
            name for name in features if name not in builder.info.features
        ]
        if missing:
            raise ValueError(
                f"Expected a data set with the features {list(features)}; "
                f"{self.directory} lacks {missing} and has "
                f"{sorted(builder.info.features)}."
            )
        instructions = _file_instructions(builder, split)
        self.files = sorted({item.filename for item in instructions})
        self._source = array_record_data_source.ArrayRecordDataSource(
            instructions
        )

    def __len__(self):
        return len(self._source)

    def read(self, indices):
        """Serialized records, in a tf.data graph or eagerly.

        Args:
            indices: int64 [B] in [0, len(self)).
        Returns: string [B].
        """
        records = tf.numpy_function(
            self._read, [indices], tf.string, stateful=False
        )
        return tf.ensure_shape(records, indices.shape)

    def _read(self, indices):
        records = self._source.__getitems__([int(i) for i in indices])
        return np.array(records, dtype=object)


def fingerprint(dataset_dir):
    """A hash that identifies a data set's content, without reading it all.

    Args:
        dataset_dir: folder of a data set.
    Returns: 64 hexadecimal digits, from the features, the name and size of
        each record file and 64 KiB at each of its ends.
    Raises: ValueError: there is no data set in the folder.
    """
    directory = pathlib.Path(dataset_dir)
    _open_builder(directory)
    digest = hashlib.sha256((directory / "features.json").read_bytes())
    for path in sorted(directory.glob("*.array_record*")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(size - _SAMPLE_BYTES, 0))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _open_builder(directory):
    """The TFDS builder of a folder, or an error that says what is there."""
    if not directory.is_dir():
        raise ValueError(
            f"Expected the folder of a data set made by vivi-prepare; "
            f"{str(directory)!r} is not a folder."
        )
    if not (directory / "dataset_info.json").is_file():
        raise ValueError(
            f"Expected the folder of a data set made by vivi-prepare; "
            f"{str(directory)!r} has no dataset_info.json."
        )
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(directory)


def _file_instructions(builder, split):
    """Which records of which files make up a split."""
    file_format = builder.info.file_format.value
    if file_format != "array_record":
        raise ValueError(
            "Expected a data set in the array_record format, whose records "
            f"can be read in any order; got {file_format!r}."
        )
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"Expected one of the splits {sorted(builder.info.splits)} or a "
            f"part of one, such as 'train[:10%]'; got {split!r}."
        ) from error
    if not instructions:
        raise ValueError(f"Split {split!r} has no records.")
    return instructions
