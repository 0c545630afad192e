"""Prepares the same data set on a cluster with Apache Beam.

A TFDS builder for `tfds build`; the folder of videos is its manual folder:

    tfds build vivi_keras/prepare/beam.py --manual_dir=VIDEOS \\
        --data_dir=DIR --beam_pipeline_options=runner=DirectRunner

Every machine must be able to read the folder VIDEOS, which may be remote, such
as gs://bucket/folder. Settings are the defaults of `video.Settings`, changed by
the JSON object in the variable VIVI_PREPARE_SETTINGS. Beam's counters named
vivi_prepare count the files: found = used + duplicates + set_aside. The
workers' logs give the reason for each file set aside.
"""

import json
import os
import tempfile

import tensorflow_datasets as tfds
from absl import logging

from vivi_keras.prepare import cache, find_videos, write_dataset
from vivi_keras.video import decode, sources
from vivi_keras.video import settings as settings_lib


def settings():
    """The settings of this run."""
    return settings_lib.Settings(
        **json.loads(os.environ.get("VIVI_PREPARE_SETTINGS", "{}"))
    )


def prepare_one(item, settings, shots_per_record=8):
    """Prepares one video; yields (key, record).

    Args:
        item: (content hash, [(name, source), ...]) of files of equal content.
        settings: `video.Settings`.
        shots_per_record: maximum number of shots in a record.
    """
    content, same = item
    name, source = min(same, key=lambda pair: pair[0])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "entry.zip")
        try:
            local = sources.fetch(source, folder)
            cache.write_entry(path, local, settings, threads=1)
        except decode.VideoError as error:
            for name, _ in same:
                _set_aside(name, error)
            return
        _count("used")
        _count("duplicates", len(same) - 1)
        yield from write_dataset.records(name, content, path, shots_per_record)


def _hash(file):
    _count("found")
    if file.status != "waiting":
        _set_aside(file.name, file.reason)
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            content = sources.fetch(file.source, folder).content_hash()
    except OSError as error:
        _set_aside(file.name, f"cannot be read: {error}")
        return
    yield content, (file.name, file.source)


def _set_aside(name, reason):
    _count("set_aside")
    logging.warning("%s: set aside: %s", name, reason)


def _count(what, number=1):
    import apache_beam as beam

    beam.metrics.Metrics.counter("vivi_prepare", what).inc(number)


class ViviVideos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Frames of consecutive shots of videos."""

    VERSION = tfds.core.Version(write_dataset.VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put the videos into the manual folder."
    name = write_dataset.NAME
    # TFDS would look here for checksums of downloads; there are no downloads.
    code_path = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=write_dataset.features(),
            description="Frames of consecutive shots of videos.",
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(dl_manager.manual_dir)}

    def _generate_examples(self, folder):
        import apache_beam as beam

        found, _ = find_videos.find_videos(os.fspath(folder), [])
        return (
            beam.Create(found)
            | beam.Reshuffle()
            | beam.FlatMap(_hash)
            | beam.GroupByKey()
            | beam.FlatMap(prepare_one, settings())
        )
