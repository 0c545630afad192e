"""Small data sets of synthetic frames in the records' schema."""

import io
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def frame_pixels(video, frame, height=48, width=80):
    """A smooth picture whose colours tell its video and frame."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack(
        [
            np.full_like(rows, 20 + 7 * (video % 32)),
            np.full_like(rows, 20 + 7 * (frame % 32)),
            (rows * 2 + columns) % 160 + 40,
        ],
        axis=-1,
    ).astype(np.uint8)


def video_example(video, shot_sizes, **size):
    """One record of a video whose shots have so many frames."""
    shot_index = np.repeat(np.arange(len(shot_sizes)), shot_sizes)
    frames = [
        frame_pixels(video, frame, **size) for frame in range(len(shot_index))
    ]
    return {
        "video": f"video_{video}.mp4",
        "video_id": 1000 + video,
        "first_shot": 0,
        "frames": frames,
        "shot_index": shot_index.tolist(),
        "time_seconds": np.arange(len(shot_index), dtype=np.float32),
        "shot_start_seconds": np.arange(len(shot_sizes), dtype=np.float32),
        "shot_stop_seconds": np.arange(
            1, 1 + len(shot_sizes), dtype=np.float32
        ),
    }


def write_dataset(
    directory, examples, file_format="array_record", records_per_file=3
):
    """Writes records through a TFDS builder.

    Args:
        directory: folder to write into.
        examples: list of dicts, as `video_example` makes them.
        file_format: a TFDS file format.
        records_per_file: int.
    Returns: the folder that `tfds.builder_from_directory` reads.
    """
    features = tfds.features.FeaturesDict(
        {
            "video": tfds.features.Text(),
            "video_id": np.int64,
            "first_shot": np.int64,
            "frames": tfds.features.Sequence(
                tfds.features.Image(
                    shape=(None, None, 3), encoding_format="jpeg"
                )
            ),
            "shot_index": tfds.features.Sequence(np.int64),
            "time_seconds": tfds.features.Sequence(np.float32),
            "shot_start_seconds": tfds.features.Sequence(np.float32),
            "shot_stop_seconds": tfds.features.Sequence(np.float32),
        }
    )
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="videos",
        version="1.0.0",
        data_dir=str(directory),
        module_name="data_helpers",
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=records_per_file, file_format=file_format
    )
    writer.initialize_splits(["train"])
    writer.add_examples(
        {"train": [features.encode_example(item) for item in examples]}
    )
    writer.close_all()
    return str(directory)


def encode_jpeg(pixels, quality=92):
    """Bytes of a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()
