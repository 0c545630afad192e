"""Writes prepared videos as a TFDS data set: records of consecutive shots."""

import json
import os
import pathlib
import shutil

import numpy as np

from vivi_keras.prepare import cache

VERSION = "1.0.0"
NAME = "vivi_videos"
SHARD_BYTES = 256 << 20


def features():
    """The features of a record: N frames of K shots of one video."""
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
    times = tfds.features.Sequence(np.float32)
    return tfds.features.FeaturesDict(
        {
            "video": tfds.features.Text(),
            "video_id": np.int64,
            "first_shot": np.int64,
            "frames": tfds.features.Sequence(image),  # [N]
            "shot_index": tfds.features.Sequence(np.int64),  # [N]
            "time_seconds": times,  # [N]
            "shot_start_seconds": times,  # [K]
            "shot_stop_seconds": times,  # [K]
        }
    )


def records(name, content, entry_path, shots_per_record):
    """Yields (key, record) for the records of one prepared video.

    Args:
        name: path of the video, stored in each record.
        content: hash of the video's content, hex.
        entry_path: path of its entry in the cache.
        shots_per_record: maximum number of shots in a record.
    """
    with cache.Entry(entry_path) as entry:
        shots = entry.video["shots"]
        for first in range(0, len(shots), shots_per_record):
            run = shots[first : first + shots_per_record]
            frames = [
                (place, index, seconds)
                for place, shot in enumerate(run)
                for index, seconds in shot["frames"]
            ]
            yield (
                f"{content}_{first:08d}",
                {
                    "video": name,
                    "video_id": cache.video_id(content),
                    "first_shot": first,
                    "frames": [entry.jpeg(index) for _, index, _ in frames],
                    "shot_index": [place for place, _, _ in frames],
                    "time_seconds": [seconds for _, _, seconds in frames],
                    "shot_start_seconds": [s["start_seconds"] for s in run],
                    "shot_stop_seconds": [s["stop_seconds"] for s in run],
                },
            )


def pack(videos, directory, description, shots_per_record=8):
    """Writes prepared videos as a data set, replacing an existing one.

    While files are replaced, `dataset_info.json` is missing, so that an
    incomplete data set cannot be opened.

    Args:
        videos: list of (name, content hash, path of the cache's entry).
        directory: folder of the data set.
        description: dict for vivi.json.
        shots_per_record: maximum number of shots in a record.

    Returns: number of records.

    Raises:
        OSError: the new data set cannot be written; the old one is kept.
    """
    directory = pathlib.Path(directory)
    work = directory / ".packing"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    serialize = _serializer()
    serialized = (
        serialize(record)
        for name, content, path in videos
        for _, record in records(name, content, path, shots_per_record)
    )
    try:
        lengths, num_bytes = _write_shards(serialized, work)
    except RuntimeError as error:  # from array_record, e.g. the disk is full
        raise OSError(f"the data set was not written: {error}") from error
    _write_metadata(work, lengths, num_bytes)
    num_records = sum(lengths)
    metadata = {
        **description,
        "num_records": num_records,
        "shard_bytes": _shard_bytes(work),
    }
    text = json.dumps(metadata, indent=1)
    (work / "vivi.json").write_text(text + "\n", encoding="utf-8")
    # Written to disk before the files get their final names, so that a power
    # failure cannot leave an incomplete file under such a name.
    for path in work.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    _exchange(work, directory)
    shutil.rmtree(work)
    return num_records


def is_whole(directory, description):
    """Whether `pack` wrote this data set and it is complete."""
    directory = pathlib.Path(directory)
    try:
        text = (directory / "vivi.json").read_text(encoding="utf-8")
        written = {"shard_bytes": None, **json.loads(text)}
    except (FileNotFoundError, ValueError, TypeError):
        return False
    expected = {
        **description,
        "num_records": written.get("num_records"),
        "shard_bytes": _shard_bytes(directory),
    }
    there = (directory / "dataset_info.json").exists()
    return there and written == expected


def _shard_bytes(directory):
    return [p.stat().st_size for p in sorted(directory.glob(f"{NAME}-*"))]


def _serializer():
    """Returns a function: record -> bytes of its tf.train.Example."""
    import tensorflow as tf

    feature = features()

    def serialize(record):
        # The order of a map in a protocol buffer differs between processes;
        # it is fixed so that every run writes the same bytes.
        example = tf.train.Example.FromString(feature.serialize_example(record))
        return example.SerializeToString(deterministic=True)

    return serialize


def _write_shards(serialized, directory):
    """Writes array_record shards; returns their lengths and total bytes."""
    from array_record.python.array_record_module import ArrayRecordWriter

    lengths, num_bytes, filled, writer = [], 0, SHARD_BYTES, None
    for data in serialized:
        if filled + len(data) > SHARD_BYTES:
            if writer is not None:
                writer.close()
            path = directory / f"shard-{len(lengths):05d}"
            # One record per group, as in TFDS: records are read one by one.
            writer = ArrayRecordWriter(str(path), "group_size:1")
            lengths.append(0)
            filled = 0
        writer.write(data)
        lengths[-1] += 1
        filled += len(data)
        num_bytes += len(data)
    if writer is None:
        raise ValueError("records must be at least one. Got: none")
    writer.close()
    for number in range(len(lengths)):
        name = f"{NAME}-train.array_record-{number:05d}-of-{len(lengths):05d}"
        os.replace(directory / f"shard-{number:05d}", directory / name)
    return lengths, num_bytes


def _write_metadata(directory, lengths, num_bytes):
    import tensorflow_datasets as tfds

    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=lengths,
        num_bytes=num_bytes,
        filename_template=tfds.core.ShardedFileTemplate(
            data_dir=directory,
            dataset_name=NAME,
            split="train",
            filetype_suffix="array_record",
        ),
    )
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features(),
        split_infos=[split],
        version=VERSION,
        check_data=False,
        description="Frames of consecutive shots of videos.",
        disable_shuffling=True,
    )


def _exchange(written, directory):
    last = "dataset_info.json"
    (directory / last).unlink(missing_ok=True)
    for old in directory.glob(f"{NAME}-*"):
        old.unlink()
    names = sorted(os.listdir(written), key=lambda n: (n == last, n))
    for name in names:
        os.replace(written / name, directory / name)
