"""Prepared videos -> a TFDS data set: records of consecutive shots."""

import contextlib
import json
import os
import pathlib
import shutil

from vivi_keras.video import cache

VERSION = "1.0.0"
NAME = "vivi_videos"


def features():
    """The features of a record; N frames of K shots of one video."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
    times = tfds.features.Sequence(tf.float32)
    return tfds.features.FeaturesDict(
        {
            "video": tfds.features.Text(),
            "video_id": tf.int64,
            "first_shot": tf.int64,
            "frames": tfds.features.Sequence(image),  # [N]
            "shot_index": tfds.features.Sequence(tf.int64),  # [N]
            "time_seconds": times,  # [N]
            "shot_start_seconds": times,  # [K]
            "shot_stop_seconds": times,  # [K]
        }
    )


def records(name, content, entry_path, shots_per_record):
    """Yields (key, record) of one prepared video.

    Args:
        name: path of the video as the record shall tell it.
        content: hash of the video's content, hex.
        entry_path: its entry in the cache.
        shots_per_record: most shots of one record.
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


def _builder(directory, generate):
    """A TFDS builder that writes what `generate` yields below a folder."""
    import tensorflow_datasets as tfds

    class ViviVideos(tfds.core.GeneratorBasedBuilder):
        """Frames of consecutive shots of videos."""

        VERSION = tfds.core.Version(VERSION)
        # TFDS looks beside the code for checksums of downloads; there are
        # none, and looking needs a package that TFDS does not install.
        code_path = None

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=features(),
                description="Frames of consecutive shots of videos.",
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {"train": generate()}

        def _generate_examples(self):
            raise NotImplementedError

    ViviVideos.name = NAME
    return ViviVideos(data_dir=str(directory), file_format="array_record")


def pack(videos, directory, description, shots_per_record=16):
    """Writes prepared videos as a data set, replacing one already there.

    While files are exchanged `dataset_info.json` is missing, so that a
    half-written data set cannot be opened.

    Args:
        videos: list of (name, content hash, path of the cache's entry).
        directory: folder of the data set.
        description: dict for vivi.json.
        shots_per_record: most shots of one record.

    Returns: number of records.
    """
    directory = pathlib.Path(directory)
    work = directory / ".packing"
    shutil.rmtree(work, ignore_errors=True)

    def generate():
        for name, content, path in videos:
            yield from records(name, content, path, shots_per_record)

    builder = _builder(work, generate)
    with _quiet():
        builder.download_and_prepare()
    num_records = builder.info.splits["train"].num_examples
    written = pathlib.Path(builder.data_dir)
    text = json.dumps({**description, "num_records": num_records}, indent=1)
    (written / "vivi.json").write_text(text + "\n", encoding="utf-8")
    _exchange(written, directory)
    shutil.rmtree(work)
    return num_records


@contextlib.contextmanager
def _quiet():
    """TFDS tells of a folder that is moved right after."""
    with (
        open(os.devnull, "w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        yield


def _exchange(written, directory):
    last = "dataset_info.json"
    (directory / last).unlink(missing_ok=True)
    for old in directory.glob(f"{NAME}-*"):
        old.unlink()
    names = sorted(os.listdir(written), key=lambda n: (n == last, n))
    for name in names:
        os.replace(written / name, directory / name)
