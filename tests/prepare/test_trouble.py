"""What users and machines do to archives and data sets, meant or not."""

import os
import struct
import subprocess
import zlib

import numpy as np
import pytest
from film_helpers import COMMAND, by_path, images, read, render

from vivi_keras import prepare
from vivi_keras.prepare import cache, find_videos, progress, watchdog
from vivi_keras.video import shots, sources


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"workers": 1.5},
        {"workers": "2"},
        {"shots_per_record": 0},
        {"short_side": 100.5},
        {"max_frames_per_shot": float("nan")},
        {"frames_per_second": float("inf")},
        {"frames_dirs_per_second": 0},
        {"frames_dirs_per_second": float("nan")},
        {"hang_seconds": 0},
        {"hang_seconds": None},
        {"file_seconds": -1.0},
        {"file_seconds": float("nan")},
    ],
    ids=str,
)
def test_an_argument_out_of_range_is_named(tmp_path, wrong):
    render(tmp_path / "a.mp4", 0)
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name} must be .*Got: "):
        prepare.prepare(tmp_path / "a.mp4", tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch):
    """As from --dataset=$UNSET."""
    render(tmp_path / "a.mp4", 0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="dataset must be a folder"):
        prepare.prepare("a.mp4", "")
    with pytest.raises(ValueError, match="videos must be a folder"):
        prepare.prepare("", "out")
    assert not (tmp_path / "prepared").exists()


def test_no_limit_on_time(tmp_path):
    render(tmp_path / "a.mp4", 0)
    report = prepare.prepare(
        tmp_path / "a.mp4",
        tmp_path / "out",
        hang_seconds=float("inf"),
        file_seconds=None,
    )
    assert report["videos_used"] == 1


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "\0"])
def test_files_of_its_own_that_were_damaged_are_written_again(tmp_path, text):
    out = tmp_path / "out"
    render(tmp_path / "a.mp4", 0)
    prepare.prepare(tmp_path / "a.mp4", out)
    whole = {p: p.read_bytes() for p in out.glob("vivi*")}
    (out / "vivi.json").write_text(text)
    (out / "prepared" / "hashes.json").write_text(text)
    prepare.prepare(tmp_path / "a.mp4", out)
    assert {p: p.read_bytes() for p in out.glob("vivi*")} == whole
    # A shard that was lost or cut off shows too.
    (shard,) = out.glob("*array_record*")
    shard.write_bytes(shard.read_bytes()[:100])
    prepare.prepare(tmp_path / "a.mp4", out)
    shard.unlink()
    prepare.prepare(tmp_path / "a.mp4", out)
    assert {p: p.read_bytes() for p in out.glob("vivi*")} == whole


def test_a_file_that_changes_meanwhile_is_set_aside(tmp_path, monkeypatch):
    """As when it is still being copied into the archive."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    render(folder / "a.mp4", 0)
    render(folder / "b.mp4", 1)
    submit = watchdog.Pool.submit

    def grow(self, job, told=None):
        future = submit(self, job, told)
        future.result()
        if job["source"]["path"].endswith("b.mp4"):
            with open(folder / "b.mp4", "ab") as file:
                file.write(b"more")
        return future

    monkeypatch.setattr(watchdog.Pool, "submit", grow)
    report = prepare.prepare(folder, out)
    assert report["videos_used"] == report["videos_set_aside"] == 1
    assert "changed" in by_path(report)["b.mp4"]["reason"]
    assert len(list((out / "prepared").rglob("*.zip"))) == 1
    monkeypatch.undo()
    assert prepare.prepare(folder, out)["videos_used"] == 2
    os.unlink(folder / "b.mp4")
    source = sources.Source("video", str(folder / "b.mp4"))
    assert not cache.Hashes(out / "prepared").unchanged(source)


def test_list_as_other_systems_write_it(tmp_path, monkeypatch):
    """A byte order mark, carriage returns, folders and devices in it."""
    render(tmp_path / "a.mp4", 0)
    monkeypatch.chdir(tmp_path)
    listed = tmp_path / "list.txt"
    listed.write_bytes(
        b"\xef\xbb\xbfa.mp4\r\n\r\n/dev/zero\r\n/tmp\r\na.mp4\r\n"
    )
    report = prepare.prepare(listed, tmp_path / "out")
    assert report["videos_used"] == 1 and report["videos_found"] == 3
    found = by_path(report)
    assert found["a.mp4"]["status"] == "used"
    assert "directory" in found["/tmp"]["reason"]


def png(width, height):
    """A small file that claims to be a large picture."""

    def chunk(name, data):
        checked = name + data
        size, check = struct.pack(">I", len(data)), zlib.crc32(checked)
        return size + checked + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(bytes(1000))),
            chunk(b"IEND", b""),
        ]
    )


def prepare_frames(tmp_path, name, damage):
    """The report on a folder of frames to which something was done."""
    folder = tmp_path / "in" / name
    folder.mkdir(parents=True)
    images(folder, 8, 0)
    damage(folder)
    return prepare.prepare(
        None, tmp_path / name, frames_dirs=tmp_path / "in", frames_per_second=2
    )


@pytest.mark.parametrize("size", [(60000, 60000), (30000, 30000)])
def test_an_image_that_would_fill_memory_is_passed_over(tmp_path, size):
    report = prepare_frames(
        tmp_path,
        "bomb",
        lambda folder: (folder / "frame3.png").write_bytes(png(*size)),
    )
    assert report["videos_used"] == report["videos_damaged"] == 1
    (record,) = read(tmp_path / "bomb")
    assert {f.shape for f in record["frames"]} == {(40, 56, 3)}


def test_folder_named_like_an_image_is_none(tmp_path):
    report = prepare_frames(
        tmp_path, "folder", lambda folder: (folder / "sub.png").mkdir()
    )
    assert report["videos_used"] == 1 and not report["videos_damaged"]


def test_a_pipe_named_like_an_image_is_not_read(tmp_path):
    def damage(folder):
        images(folder.parent.joinpath("good"), 4, 1)
        os.mkfifo(folder / "frame9.png")

    (tmp_path / "in" / "good").mkdir(parents=True)
    report = prepare_frames(tmp_path, "pipe", damage)
    assert report["videos_used"] == report["videos_set_aside"] == 1
    reason = by_path(report)["pipe"]["reason"]
    assert "Not a regular file" in reason and "frame9.png" in reason


def test_nothing_found_names_where(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="must be videos in .*in. Got: none"):
        prepare.prepare(None, tmp_path / "out", frames_dirs=tmp_path / "in")


def test_stamps_far_apart():
    """As of damaged sequence examples: 1e-13 frames a second."""
    black = np.zeros((9, 16, 3), np.uint8)
    found = shots.CutDetector("adaptive")
    for index in range(3):
        assert found.add(index, 1.5e12 * index, black) == []
    assert found.finish() == []


def test_a_terminal_that_lacks_characters(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    render(folder / "a.mp4", 0)
    (folder / "電影.mp4").touch()
    (folder / "<b>&.mp4").touch()
    done = subprocess.run(
        [*COMMAND, f"--videos={folder}", f"--dataset={tmp_path / 'out'}"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "\\u96fb\\u5f71.mp4: the file is empty" in done.stdout
    assert "Traceback" not in done.stderr
    assert "| 3/3 files, 0.00 h of video," in done.stderr
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;.mp4" in page and "<b>&" not in page
    assert "電影.mp4" in page


def test_progress_counts_what_short_files_hold():
    """Workers tell nothing of a file that is done in half a second."""
    found = [find_videos.File(str(n), None, size=10) for n in range(3)]
    with progress.Progress(found, show=False) as bar:
        first, _ = bar.of(found[0]), bar.of(found[1])
        first({"seconds": 1800.0, "duration": 3600.0})
        assert bar._seconds == 1800.0
        for file in found[:2]:
            file.details["seconds"] = 3600.0
            bar.done(file)
        found[2].details["seconds"] = 3600.0  # of an earlier run
        bar.done(found[2])
        assert bar._seconds == 7200.0 and bar._num_done == 3
