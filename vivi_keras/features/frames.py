"""Reads shots and their frames from a prepared data set, for pictures."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shot:
    """Some frames of one shot; `index` counts shots within its video."""

    video: str
    video_id: int
    index: int
    start_seconds: float
    stop_seconds: float
    frames: list
    times_seconds: np.ndarray


def shot_frames(dataset, frames_per_shot=2, max_shots=1000):
    """Reads shots, each with frames spread evenly over it.

    Args:
        dataset: folder written by `vivi_keras.prepare.prepare`.
        frames_per_shot: int, most frames decoded per shot.
        max_shots: int; from a longer data set, evenly spaced records are read.
    Returns: list of Shot, in the data set's order.
    """
    import tensorflow_datasets as tfds
    from array_record.python import array_record_data_source

    split = tfds.builder_from_directory(str(dataset)).info.splits["train"]
    shots = []
    with array_record_data_source.ArrayRecordDataSource(
        [str(path) for path in split.filepaths]
    ) as source:
        for place in _spread(len(source), max_shots):
            shots += _record_shots(source[int(place)], frames_per_shot)
            if len(shots) >= max_shots:
                break
    return shots


def _record_shots(record, frames_per_shot):
    """The shots of one stored tf.train.Example."""
    import tensorflow as tf

    values = tf.train.Example.FromString(record).features.feature
    index = np.asarray(values["shot_index"].int64_list.value)
    stops = values["shot_stop_seconds"].float_list.value
    # Only the frames used are decoded; most are not used.
    encoded = values["frames"].bytes_list.value
    shots = []
    for place, start in enumerate(
        values["shot_start_seconds"].float_list.value
    ):
        rows = np.flatnonzero(index == place)
        rows = rows[_spread(len(rows), frames_per_shot)]
        shots.append(
            Shot(
                values["video"].bytes_list.value[0].decode(),
                values["video_id"].int64_list.value[0],
                values["first_shot"].int64_list.value[0] + place,
                start,
                stops[place],
                [tf.io.decode_jpeg(encoded[row], 3).numpy() for row in rows],
                np.asarray(values["time_seconds"].float_list.value)[rows],
            )
        )
    return shots


def _spread(count, wanted):
    """At most `wanted` of `count` indices, evenly spread, without repeats."""
    if count <= wanted:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int))
