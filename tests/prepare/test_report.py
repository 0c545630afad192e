"""What the report says of frames kept and shots that look wrong."""

import json
import subprocess

import av
import numpy as np
import pytest
from film_helpers import (
    COMMAND,
    read,
    render,
    render_smallest_corpus,
    write_sound,
)

from vivi_keras import prepare
from vivi_keras.prepare import cache
from vivi_keras.prepare import report as report_lib
from vivi_keras.video import decode, extract, shots, sources
from vivi_keras.video import settings as settings_lib


def totals(**changed):
    """Totals of an hour of film with ten cuts a minute."""
    settings = settings_lib.Settings(**changed.pop("settings", {}))
    return {
        "videos_used": 4,
        "video_seconds": 3600.0,
        "frames_decoded": 90_000,
        "shots": 604,
        "frames_kept": 3600,
        "cuts": 600,
        "picture_changes": 700,
        "counts": {},
        "settings": {**settings.__dict__},
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"cuts": 0, "shots": 0}, []),
        ({"picture_changes": 1500}, []),
        ({"picture_changes": 250}, []),
        ({"cuts": 100}, ["missed", "--detector=histogram"]),
        (
            {"cuts": 100, "settings": {"detector": "histogram"}},
            ["missed", "--detector=content"],
        ),
        ({"picture_changes": 90}, ["in pieces", "--min_shot_seconds=2"]),
        (
            {"picture_changes": 90, "settings": {"detector": "content"}},
            ["in pieces", "--detector=adaptive"],
        ),
        (
            {"cuts": 0, "picture_changes": 3, "shots": 4},
            ["4 videos is a single shot", "--max_shot_seconds"],
        ),
        (
            {"frames_kept": 600, "counts": {"frames_thinned": 3000}},
            ["10.0 frames", "3000 more", "--max_frames_per_shot=32"],
        ),
        (
            {"frames_kept": 360, "settings": {"frames_per_second": 0.1}},
            ["6.0 frames", "--frames_per_second=0.4"],
        ),
        # A screen recording or time-lapse: there are no more pictures.
        ({"frames_kept": 360, "frames_decoded": 400}, []),
        (
            {"counts": {"shots_without_good_frames": 7}},
            ["7 shots are left out"],
        ),
    ],
)
def test_hints(changed, words):
    hints = report_lib.hints(totals(**changed))
    assert len(hints) == min(len(words), 1)
    for word in words:
        assert word in hints[0]


def test_films_with_cuts_give_no_hint(tmp_path):
    render_smallest_corpus(tmp_path / "in")
    report = prepare.prepare(tmp_path / "in", tmp_path / "out")
    assert report["hints"] == [] and report["cuts"] == 8
    kept = report["frames_kept"] / (report["video_seconds"] / 60)
    assert report["frames_per_minute"] == pytest.approx(kept)


def test_an_archive_of_single_shots_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    for seed in range(3):
        render(tmp_path / "in" / f"{seed}.mp4", seed, 480, cuts=())
    out = tmp_path / "out"
    done = subprocess.run(
        [*COMMAND, f"--videos={tmp_path / 'in'}", f"--dataset={out}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "12.0 frames kept a minute of video" in done.stdout
    assert "each of the 3 videos is a single shot" in done.stdout
    assert "--max_frames_per_shot=32" in done.stdout
    report = json.loads((out / "report.json").read_text())
    assert len(report["hints"]) == 2
    assert "a single shot" in (out / "report.html").read_text()


class Blind(shots.CutDetector):
    def add(self, index, seconds, small):
        super().add(index, seconds, small)
        return []

    def finish(self):
        super().finish()
        return []


class Nervous(Blind):
    def add(self, index, seconds, small):
        super().add(index, seconds, small)
        return [index] if index % 7 == 6 else []


@pytest.mark.parametrize(
    ("detector", "cuts", "word"),
    [
        (shots.CutDetector, range(20, 300, 20), None),
        (Blind, range(20, 300, 20), "missed"),
        (Nervous, [150], "in pieces"),
    ],
)
def test_cuts_are_weighed_against_the_picture(
    tmp_path, monkeypatch, detector, cuts, word
):
    monkeypatch.setattr(shots, "CutDetector", detector)
    render(tmp_path / "a.mp4", 0, 340, cuts=cuts)
    video = extract.extract(
        sources.Source("video", str(tmp_path / "a.mp4")),
        settings_lib.Settings(),
        lambda index, jpeg: None,
        threads=1,
    )
    assert video["picture_changes"] == len(cuts)
    found = {k: video[k] for k in ("cuts", "picture_changes", "counts")}
    hints = report_lib.hints(
        totals(**found, video_seconds=video["duration_seconds"], videos_used=1)
    )
    assert len(hints) == (word is not None)
    assert word is None or word in hints[0]


def test_sound_with_a_cover_is_told_as_such(tmp_path):
    write_sound(tmp_path / "sound.mp4")
    path = tmp_path / "cover.mp3"
    with av.open(str(path), "w") as file:
        sound = file.add_stream("mp3", rate=44100)
        cover = file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        image = np.zeros((48, 64, 3), np.uint8)
        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        packets = [*cover.encode(frame), *cover.encode()]
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1152), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 44100, 1152 * index
            packets += sound.encode(frame)
        file.mux([*packets, *sound.encode()])
    with pytest.raises(decode.VideoError, match="only a cover picture"):
        decode.Video(str(path))


def test_a_list_with_comments_and_paths_beside_it(tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    render(tmp_path / "here" / "a.mp4", 0)
    render(tmp_path / "here" / "#1.mp4", 1)
    render(tmp_path / "lists" / "b.mp4", 2)
    listed = tmp_path / "lists" / "list.txt"
    listed.write_text("# my films\na.mp4\n#1.mp4\n#2.mp4\nb.mp4\n")
    report = prepare.prepare(listed, tmp_path / "out")
    files = {f["path"]: f for f in report["files"]}
    assert list(files) == ["a.mp4", "#1.mp4", "b.mp4"]
    assert report["videos_used"] == 2
    assert "start at the working directory" in files["b.mp4"]["reason"]


def test_videos_prepared_by_an_older_clock_are_prepared_again(
    tmp_path, monkeypatch
):
    """Format 3 took times from the rate that a file states."""
    render(tmp_path / "a.mp4", 0)
    out = tmp_path / "out"
    monkeypatch.setattr(settings_lib, "FORMAT", 3)
    prepare.prepare(tmp_path / "a.mp4", out)
    (old,) = out.glob("prepared/*/*.zip")
    stale = old.read_bytes()
    monkeypatch.undo()
    assert len(read(out)) == 1  # the data set of before still loads
    prepare.prepare(tmp_path / "a.mp4", out)
    (new,) = set(out.glob("prepared/*/*.zip")) - {old}
    assert old.read_bytes() == stale
    with cache.Entry(new) as entry:
        assert entry.video["format"] == settings_lib.FORMAT > 3
