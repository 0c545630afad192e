"""The data set made by Beam's DirectRunner is that of vivi-prepare."""

import collections

import numpy as np
import pytest
from film_helpers import read, render

from vivi_keras import prepare

beam = pytest.importorskip(
    "apache_beam", reason="needs the extra [beam], apache-beam"
)


def test_direct_runner_makes_the_same_records(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    from vivi_keras.prepare import beam as beam_lib

    counts = collections.Counter()
    monkeypatch.setattr(
        beam_lib,
        "_count",
        lambda what, number=1: counts.update({what: number}),
    )
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(3):
        render(folder / f"{seed}.mp4", seed)
    (folder / "copy.mp4").write_bytes((folder / "1.mp4").read_bytes())
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mp4").touch()
    builder = beam_lib.ViviVideos(
        data_dir=str(tmp_path / "data"), file_format="array_record"
    )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=str(folder),
            beam_options=beam.options.pipeline_options.PipelineOptions(
                ["--runner=DirectRunner"]
            ),
        )
    )
    prepare.prepare(folder, tmp_path / "out")
    theirs = {r["video"]: r for r in builder.as_data_source(split="train")}
    ours = {r["video"]: r for r in read(tmp_path / "out")}
    assert theirs.keys() == ours.keys() and len(ours) == 3
    assert counts == {"found": 6, "used": 3, "duplicates": 1, "set_aside": 2}
    for name, record in ours.items():
        assert record.keys() == theirs[name].keys()
        for key, value in record.items():
            np.testing.assert_array_equal(theirs[name][key], value)
