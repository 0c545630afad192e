"""Videos -> data set: round trip, resume, files that misbehave."""

import json

import numpy as np
import pytest
from film_helpers import read, render

from vivi_keras import prepare
from vivi_keras.video import extract, sources
from vivi_keras.video import settings as settings_lib


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    render(folder / "a.mp4", 0)
    (folder / "deep").mkdir()
    render(folder / "deep" / "b.mkv", 1, cuts=(30,))
    return folder


def test_a_clip_reads_at_most_eight_times_the_frames_it_uses(tmp_path):
    """4 shots of 2 frames, out of the largest record that is made."""
    (tmp_path / "in").mkdir()
    cuts = range(12, 120, 12)
    render(tmp_path / "in" / "long.mp4", 0, num_frames=120, cuts=cuts)
    prepare.prepare(tmp_path / "in", tmp_path / "out", frames_per_second=12.0)
    records = read(tmp_path / "out")
    assert [len(r["shot_start_seconds"]) for r in records] == [8, 2]
    assert [len(r["frames"]) for r in records] == [8 * (4 * 2), 16]


def test_round_trip(archive, tmp_path):
    report = prepare.prepare(archive, tmp_path, frames_per_second=2.0)
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


def edges(path, **settings):
    """(frames at which shots begin and stop, counts) of a prepared film."""
    kept = {}
    found = extract.extract(
        sources.Source("video", str(path)),
        settings_lib.Settings(**settings),
        kept.__setitem__,
        threads=1,
    )
    for shot in found["shots"]:
        assert shot["start_seconds"] == pytest.approx(shot["start_frame"] / 12)
        assert shot["stop_seconds"] == pytest.approx(shot["stop_frame"] / 12)
        for index, seconds in shot["frames"]:
            assert shot["start_frame"] <= index < shot["stop_frame"]
            assert seconds == pytest.approx(index / 12) and kept.pop(index)
    assert not kept
    shots = [(s["start_frame"], s["stop_frame"]) for s in found["shots"]]
    return shots, found["counts"]


def test_long_shots_are_split(tmp_path):
    render(tmp_path / "a.mp4", 0, num_frames=96, cuts=(30,))
    found, counts = edges(tmp_path / "a.mp4", max_shot_seconds=2.0)
    # A last piece that is too short joins the one before.
    assert found == [(0, 24), (24, 30), (30, 54), (54, 78), (78, 96)]
    assert counts["long_shots_split"] == 3
    found, _ = edges(tmp_path / "a.mp4")
    assert found == [(0, 30), (30, 96)]


def test_short_shots_are_merged_or_dropped(tmp_path):
    """Of 4 frames, a third of a second; the last one too."""
    path = tmp_path / "a.mp4"
    render(path, 0, num_frames=64, cuts=(24, 28, 60))
    found, counts = edges(path)
    assert found == [(0, 24), (24, 64)]
    assert counts["short_shots_merged"] == 2
    found, counts = edges(path, short_shots="drop")
    assert found == [(0, 24), (28, 60)]
    assert counts["short_shots_dropped"] == 2
    found, counts = edges(path, min_shot_seconds=0.0)
    assert found == [(0, 24), (24, 28), (28, 60), (60, 64)]
    assert "short_shots_merged" not in counts


def kept_of_shots(path, **settings):
    """(seconds at which each shot starts, frames kept of each)."""
    found = extract.extract(
        sources.Source("video", str(path)),
        settings_lib.Settings(**settings),
        lambda index, jpeg: None,
        threads=1,
    )
    starts = [shot["start_seconds"] for shot in found["shots"]]
    return starts, [len(shot["frames"]) for shot in found["shots"]]


def test_a_short_shot_keeps_its_frames_whatever_the_file_says(tmp_path):
    """Browsers write a rate of 1000: every 126th frame was held."""
    rng = np.random.default_rng(0)
    stamps = np.cumsum(rng.choice([16, 17, 33, 34, 50, 41], 300))
    cuts = range(20, 300, 20)
    path = tmp_path / "a.mkv"
    render(path, 0, 300, cuts=cuts, rate=1000, stamps=stamps)
    starts, frames = kept_of_shots(path)
    seconds = (stamps[[0, *cuts]] - stamps[0]) / 1e3
    assert starts == pytest.approx(seconds, abs=2e-3)
    assert frames == [2] * 15


def test_a_short_shot_of_few_or_many_pictures_keeps_frames(tmp_path):
    for rate, length in ((6, 5), (120, 70)):
        path = tmp_path / f"{rate}.mp4"
        cuts = range(length, 12 * length, length)
        render(path, 0, 12 * length, cuts=cuts, rate=rate)
        starts, frames = kept_of_shots(path)
        assert starts == pytest.approx(np.array([0, *cuts]) / rate)
        assert min(frames) == 2


def test_frames_beyond_the_limit_are_thinned(tmp_path):
    render(tmp_path / "a.mp4", 0, num_frames=240, cuts=())
    kept = {}
    found = extract.extract(
        sources.Source("video", str(tmp_path / "a.mp4")),
        settings_lib.Settings(frames_per_second=2.0, max_frames_per_shot=4),
        kept.__setitem__,
        threads=1,
    )
    (shot,) = found["shots"]
    times = [seconds for _, seconds in shot["frames"]]
    assert len(times) == len(kept) == 4
    assert found["counts"]["frames_thinned"] == 40 - 4
    # Over all of the 20 seconds, no step more than twice another.
    steps = np.diff(times)
    assert times[0] < 5 and times[-1] > 15
    assert steps.max() <= 2 * steps.min()


def test_nothing_usable(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.mp4").write_text("no video")
    (tmp_path / "in" / "empty.mp4").touch()
    with pytest.raises(ValueError, match="none of 2 videos"):
        prepare.prepare(tmp_path / "in", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["videos_set_aside"] == 2
    assert all(f["reason"] for f in report["files"])
