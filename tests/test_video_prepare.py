"""Videos -> data set: round trip, resume, files that misbehave."""

import json

import av
import numpy as np
import pytest

from vivi_keras import video


def render(path, seed, num_frames=60, size=(64, 48), cuts=(20, 40), rate=12):
    """A film of one plain-textured scene per shot."""
    rng = np.random.default_rng(seed)
    width, height = size
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        for index in range(num_frames):
            if index in (0, *cuts):
                image = rng.integers(0, 256, (6, 8, 3), np.uint8)
                image = np.kron(image, np.ones((height // 6, width // 8, 1)))
            frame = av.VideoFrame.from_ndarray(
                image.astype(np.uint8), format="rgb24"
            )
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    render(folder / "a.mp4", 0)
    (folder / "deep").mkdir()
    render(folder / "deep" / "b.mkv", 1, cuts=(30,))
    return folder


def read(dataset):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(dataset))
    return list(builder.as_data_source(split="train"))


def test_round_trip(archive, tmp_path):
    report = video.prepare(archive, tmp_path, frames_per_second=2.0)
    assert report["videos_found"] == report["videos_used"] == 2
    first, second = read(tmp_path)
    assert first["video"] == b"a.mp4"
    assert second["video"] == b"deep/b.mkv"
    assert first["video_id"] >= 0 and first["video_id"] != second["video_id"]
    np.testing.assert_allclose(
        first["shot_start_seconds"], [0, 20 / 12, 40 / 12], atol=1e-5
    )
    np.testing.assert_allclose(
        first["shot_stop_seconds"], [20 / 12, 40 / 12, 5], atol=1e-5
    )
    assert list(first["shot_index"]) == [0] * 4 + [1] * 3 + [2] * 3
    assert [f.shape for f in first["frames"]] == [(48, 64, 3)] * 10
    for place, seconds in zip(
        first["shot_index"], first["time_seconds"], strict=True
    ):
        assert first["shot_start_seconds"][place] <= seconds
        assert seconds < first["shot_stop_seconds"][place]


def test_nothing_usable(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.mp4").write_text("no video")
    (tmp_path / "in" / "empty.mp4").touch()
    with pytest.raises(ValueError, match="none of 2 videos"):
        video.prepare(tmp_path / "in", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["videos_set_aside"] == 2
    assert all(f["reason"] for f in report["files"])
