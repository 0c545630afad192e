"""Archives as they are: broken files, odd names, stops at any time."""

import errno
import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from film_helpers import (
    COMMAND,
    by_path,
    images,
    read,
    render,
    write,
    write_sound,
)

from vivi_keras import prepare
from vivi_keras.prepare import cache, find_videos, watchdog, worker
from vivi_keras.prepare import report as report_lib
from vivi_keras.video import sources


def same_bytes(first, second):
    """Whether two data sets hold the same files with the same bytes."""

    def content(folder):
        return {
            str(p.relative_to(folder)): p.read_bytes()
            for p in sorted(folder.rglob("*"))
            if p.is_file()
            and not p.name.startswith(("report.", "hashes.", "."))
        }

    left, right = content(first), content(second)
    assert left.keys() == right.keys()
    for name in left:
        assert left[name] == right[name], name


def test_odd_archive(tmp_path):
    """Every kind of trouble at once: the rest is prepared, all is told."""
    folder = tmp_path / "in put"
    folder.mkdir()
    render(folder / "good one.mp4", 0)
    render(folder / "same.mp4", 1)
    render(folder / "same.mkv", 2)
    (folder / "copy.mp4").write_bytes((folder / "same.mp4").read_bytes())
    os.rename(folder / "good one.mp4", folder / "new\nline.mp4")
    bad = os.fsencode(folder) + b"/caf\xe9.mp4"
    render(tmp_path / "x.mp4", 3)
    os.rename(tmp_path / "x.mp4", bad)
    (folder / "text.mp4").write_text("this is no video at all\n" * 50)
    (folder / "empty.avi").touch()
    (folder / "notes.txt").write_text("not counted as a video")
    write_sound(folder / "sound.mp4")
    (folder / "loop").symlink_to(folder)
    (folder / "round.mp4").symlink_to(folder / "round.mp4")
    (folder / "lost.mp4").symlink_to(folder / "nowhere.mp4")
    os.mkfifo(folder / "pipe.mp4")
    report = prepare.prepare(folder, folder / "out", workers=2)
    found = by_path(report)
    used = {p for p, f in found.items() if f["status"] == "used"}
    assert used == {"copy.mp4", "same.mkv", "new\\nline.mp4", "caf\\xe9.mp4"}
    assert report["videos_found"] == 11
    assert report["videos_used"] + report["videos_set_aside"] == 11
    assert report["duplicates"] == 1 and report["other_files"] == 1
    assert found["same.mp4"]["reason"] == "same content as copy.mp4"
    assert "no video stream" in found["sound.mp4"]["reason"]
    assert "empty" in found["empty.avi"]["reason"]
    assert found["text.mp4"]["reason"] and found["lost.mp4"]["reason"]
    assert "symbolic links" in found["round.mp4"]["reason"]
    names = {r["video"].decode() for r in read(folder / "out")}
    assert names == used
    page = (folder / "out" / "report.html").read_text()
    assert "caf\\xe9.mp4" in page and "no video stream" in page
    # Again, with the output inside: nothing new is found.
    again = prepare.prepare(folder, folder / "out")
    assert again["videos_found"] == 11


def test_added_files_alone_are_prepared(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    render(folder / "b.mp4", 0)
    prepare.prepare(folder, tmp_path / "out")
    (entry,) = (tmp_path / "out" / "prepared").rglob("*.zip")
    made = entry.stat().st_mtime_ns
    render(folder / "a.mp4", 1)
    prepare.prepare(folder, tmp_path / "out")
    assert entry.stat().st_mtime_ns == made
    prepare.prepare(folder, tmp_path / "fresh")
    same_bytes(tmp_path / "out", tmp_path / "fresh")
    # Other settings never mix with what is there.
    prepare.prepare(folder, tmp_path / "out", short_side=32)
    assert {
        f.shape[0] for r in read(tmp_path / "out") for f in r["frames"]
    } == {32}


def start(folder, out):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.Popen(
        [*COMMAND, f"--videos={folder}", f"--dataset={out}", "--workers=2"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill_and_resume(tmp_path, num_kills, num_films):
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(num_films):
        render(folder / f"{seed}.mp4", seed, 240, (160, 96), (80, 160))
    began = time.monotonic()
    process = start(folder, tmp_path / "whole")
    assert process.wait() == 0, process.stdout.read()
    whole = time.monotonic() - began
    rng, out, killed = np.random.default_rng(0), tmp_path / "out", 0
    while killed < num_kills:
        began = time.monotonic()
        process = start(folder, out)
        try:
            code = process.wait(rng.uniform(0.2, 1.0) * whole)
        except subprocess.TimeoutExpired:
            # The parent alone or its workers too, as a machine that fails.
            if rng.random() < 0.5:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            if (out / "dataset_info.json").exists():
                assert len(read(out)) == num_films
            continue
        # It came to its end sooner: the next kill strikes a new one.
        assert code == 0, process.stdout.read()
        same_bytes(tmp_path / "whole", out)
        shutil.rmtree(out)
        whole = min(whole, time.monotonic() - began)
    process = start(folder, out)
    assert process.wait() == 0, process.stdout.read()
    same_bytes(tmp_path / "whole", out)


def test_killed_and_resumed(tmp_path):
    kill_and_resume(tmp_path, 2, 4)


@pytest.mark.slow  # 20 starts of TensorFlow
def test_killed_twenty_times_and_resumed(tmp_path):
    kill_and_resume(tmp_path, 20, 12)


def test_half_written_is_not_taken_for_whole(tmp_path, monkeypatch):
    """Stopped while files are exchanged, the data set does not open."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    render(folder / "a.mp4", 0)
    prepare.prepare(folder, out)
    render(folder / "b.mp4", 1)
    replace = os.replace

    def stop(first, second):
        if "array_record" in str(first):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(first, second)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(OSError, match="No space"):
        prepare.prepare(folder, out)
    assert not (out / "dataset_info.json").exists()
    monkeypatch.undo()
    prepare.prepare(folder, out)
    assert len(read(out)) == 2


def test_full_disk_while_packing_leaves_the_old_data_set(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        write(folder / f"{number}.mp4", noise=rng, count=60)
    prepare.prepare(folder, out)
    before = (out / "dataset_info.json").read_bytes()
    size = max(p.stat().st_size for p in (out / "prepared").rglob("*.zip"))
    write(folder / "3.mp4", noise=rng, count=60)
    # Enough for an entry, not for the shard.
    command = " ".join([*COMMAND, f"--videos={folder}", f"--dataset={out}"])
    process = subprocess.run(
        ["bash", "-c", f"ulimit -f {size // 1024 + 8}; {command}"],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "the data set was not written" in process.stderr
    assert "Traceback" not in process.stderr
    assert (out / "dataset_info.json").read_bytes() == before
    assert len(read(out)) == 3
    prepare.prepare(folder, out)
    assert len(read(out)) == 4


def test_full_disk_stops_the_run(tmp_path):
    """A limit on the size of files stands for a disk that is full."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    rng = np.random.default_rng(0)
    write(folder / "a.mp4", noise=rng, count=60)
    command = " ".join([*COMMAND, f"--videos={folder}", f"--dataset={out}"])
    process = subprocess.run(
        ["bash", "-c", f"ulimit -f 8; {command} --frames_per_second=12"],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "the run was stopped at a.mp4" in process.stderr
    assert "File too large" in process.stderr
    assert str(out / "prepared") in process.stderr
    assert not (out / "dataset_info.json").exists()
    assert not list(out.rglob("*.zip")) and not list(out.rglob("*.half"))


def test_unreadable_folder_is_told(tmp_path, monkeypatch):
    (tmp_path / "in" / "locked").mkdir(parents=True)
    render(tmp_path / "in" / "a.mp4", 0)
    listdir = os.listdir

    def refuse(path):
        if pathlib.Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(find_videos.os, "listdir", refuse)
    report = prepare.prepare(tmp_path / "in", tmp_path / "out")
    locked = by_path(report)["locked"]
    assert locked["status"] == "set aside"
    assert "Permission denied" in locked["reason"]
    with pytest.raises(ValueError, match="strict"):
        prepare.prepare(tmp_path / "in", tmp_path / "out", strict=True)


def test_data_set_of_another_program_is_left_alone(tmp_path):
    render(tmp_path / "a.mp4", 0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match="another data set"):
        prepare.prepare(tmp_path / "a.mp4", tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["dataset_info.json"]


def test_damaged_cache_is_made_again(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for seed in range(2):
        render(folder / f"{seed}.mp4", seed)
    prepare.prepare(folder, tmp_path / "whole")
    prepare.prepare(folder, out)
    first, second = sorted((out / "prepared").rglob("*.zip"))
    first.write_bytes(first.read_bytes()[:-30])
    prepare.prepare(folder, out)
    same_bytes(tmp_path / "whole", out)
    # A flipped bit of a picture shows when it is packed.
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 1
    second.write_bytes(bytes(data))
    (out / "vivi.json").unlink()
    (out / "dataset_info.json").unlink()
    with pytest.raises(ValueError, match="is damaged.*delete it"):
        prepare.prepare(folder, out)
    assert not (out / "dataset_info.json").exists()


def test_arguments_are_checked(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="Got: none"):
        prepare.prepare(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ValueError, match="another folder"):
        prepare.prepare(tmp_path / "in", tmp_path / "in")
    with pytest.raises(ValueError, match="must be a folder"):
        prepare.prepare(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match="short_side must be an int from 16"):
        prepare.prepare(tmp_path / "in", tmp_path / "out", short_side=2)
    (tmp_path / "list.txt").write_text("\n  \n")
    with pytest.raises(ValueError, match="list.txt. Got: none"):
        prepare.prepare(tmp_path / "list.txt", tmp_path / "out")
    (tmp_path / "list.bin").write_bytes(b"ab\0cd")
    with pytest.raises(ValueError, match="not a text file"):
        prepare.prepare(tmp_path / "list.bin", tmp_path / "out")
    with pytest.raises(ValueError, match="workers"):
        prepare.prepare(tmp_path / "in", tmp_path / "out", workers=0)
    with pytest.raises(ValueError, match="must be given. Got: none"):
        prepare.prepare(None, tmp_path / "out")


def test_one_run_at_a_time(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    render(tmp_path / "a.mp4", 0)
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run"):
            prepare.prepare(tmp_path / "a.mp4", tmp_path / "out")


def job(source, entry):
    from vivi_keras.video import settings as settings_lib

    settings = {**settings_lib.Settings().__dict__}
    return {
        "source": {"kind": "video", "path": str(source)},
        "entry": str(entry),
        "settings": settings,
        "threads": 1,
    }


def test_a_file_that_hangs_is_stopped(tmp_path):
    """A pipe that nobody writes to stands for a decoder that hangs."""
    os.mkfifo(tmp_path / "hang.mp4")
    render(tmp_path / "good.mp4", 0)
    with watchdog.Pool(1, watchdog.Limits(hang_seconds=1.0)) as workers:
        hung = workers.submit(job(tmp_path / "hang.mp4", tmp_path / "1.zip"))
        good = workers.submit(job(tmp_path / "good.mp4", tmp_path / "2.zip"))
        assert hung.result()["failed"].startswith("hung")
        assert good.result()["done"] is True


def test_a_file_that_takes_too_long_is_stopped(tmp_path):
    render(tmp_path / "long.mp4", 0, num_frames=3000, cuts=())
    limits = watchdog.Limits(hang_seconds=60.0, file_seconds=0.05)
    with watchdog.Pool(1, limits) as workers:
        answer = workers.submit(job(tmp_path / "long.mp4", tmp_path / "1.zip"))
        assert answer.result()["failed"].startswith("took too long")


def test_what_is_stopped_tells_how_far_it_got(tmp_path):
    """The fourth image comes late, the eighth never."""
    images(tmp_path, 10, 0)
    late = (tmp_path / "frame3.png").read_bytes()
    for name in ("frame3.png", "frame7.png"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    task = job(tmp_path, tmp_path / "1.zip")
    task["source"]["kind"] = "frames"
    with watchdog.Pool(1, watchdog.Limits(hang_seconds=4.0)) as workers:
        answer = workers.submit(task)
        with open(tmp_path / "frame3.png", "wb") as pipe:  # waits for a reader
            time.sleep(worker.PROGRESS_SECONDS + 0.2)
            pipe.write(late)
        answer = answer.result()
    assert answer["failed"].startswith("hung") and answer["kind"] == "time"
    assert 2 <= answer["frames"] <= 7 and answer["duration"] == 10.0
    answer["path"], answer["status"] = "a", "set aside"
    answer["reason"] = answer.pop("failed")
    (line,) = report_lib.table({"files": [answer]})
    assert line.startswith("  a: hung: stopped after")
    assert line.endswith(
        f"{answer['frames']} frames, {answer['seconds']:.0f} s)"
    )


def test_a_decoder_that_crashes_costs_one_file(tmp_path, monkeypatch):
    render(tmp_path / "good.mp4", 0)
    with watchdog.Pool(1, watchdog.Limits()) as workers:
        first = workers._take()
        first._process.send_signal(signal.SIGSEGV)
        first._process.wait()
        workers._idle.put(first)
        crashed = workers.submit(job(tmp_path / "good.mp4", tmp_path / "1.zip"))
        assert "crashed" in crashed.result()["failed"]
        good = workers.submit(job(tmp_path / "good.mp4", tmp_path / "1.zip"))
        assert good.result()["done"] is True


def test_a_bug_costs_one_file(monkeypatch):
    def fail(*unused, **also):
        raise KeyError("oops")

    monkeypatch.setattr(cache, "write_entry", fail)
    answer = worker._work(job("x", "y"), None)
    assert answer["kind"] == "bug" and "oops" in answer["failed"]


def test_list_of_paths_and_patterns(tmp_path):
    (tmp_path / "in").mkdir()
    for seed in range(3):
        render(tmp_path / "in" / f"{seed}.mp4", seed)
    listed = tmp_path / "list.txt"
    listed.write_text(
        f"{tmp_path}/in/0.mp4\n\nfile://{tmp_path}/in/[12].mp4\n"
        f"{tmp_path}/in/missing.mp4\nfile://{tmp_path}/none/*.mp4\n"
    )
    report = prepare.prepare(listed, tmp_path / "out")
    assert report["videos_used"] == 3 and report["videos_found"] == 5
    assert len(read(tmp_path / "out")) == 3
    assert not (tmp_path / "out" / ".fetched").exists()


def test_remote_folder(tmp_path, monkeypatch):
    """Fetched a few at a time, once, and told apart by their whole path."""
    import tensorflow as tf

    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "a").mkdir(parents=True)
    render(folder / "a" / "b.mp4", 0)
    render(folder / "a_b.mp4", 1)
    render(folder / "c.mkv", 2)
    (folder / "copy.mkv").write_bytes((folder / "c.mkv").read_bytes())
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("no video")
    copy, copied, most = tf.io.gfile.copy, [], 0

    def count(source, target, overwrite):
        nonlocal most
        copied.append(source)
        copy(source, target, overwrite=overwrite)
        most = max(most, len(os.listdir(out / ".fetched")))

    monkeypatch.setattr(tf.io.gfile, "copy", count)
    module = importlib.import_module("vivi_keras.prepare.prepare")
    monkeypatch.setattr(module, "_AHEAD", 1)
    report = prepare.prepare(f"file://{folder}", out)
    assert report["videos_found"] == 5 and report["videos_used"] == 3
    assert report["duplicates"] == 1 and report["other_files"] == 1
    assert len(copied) == 4 and most <= 3
    assert not (out / ".fetched").exists()
    assert len({r["video_id"] for r in read(out)}) == 3
    render(folder / "d.mp4", 3)
    again = prepare.prepare(f"file://{folder}", out)
    assert again["videos_used"] == 4 and len(copied) == 5


def test_folders_of_frames(tmp_path):
    for seed, name in enumerate(["one", "deep/two"]):
        (tmp_path / "in" / name).mkdir(parents=True)
        images(tmp_path / "in" / name, 15, seed)
    (tmp_path / "in" / "one" / "frame99.png").write_bytes(b"broken")
    report = prepare.prepare(
        None,
        tmp_path / "out",
        frames_dirs=tmp_path / "in",
        frames_dirs_per_second=2.0,
        frames_per_second=2.0,
        detector="histogram",
        max_frames_per_shot=16,
    )
    assert report["videos_used"] == 2 and report["videos_damaged"] == 1
    records = {r["video"].decode(): r for r in read(tmp_path / "out")}
    two = records["deep/two"]
    np.testing.assert_allclose(
        two["time_seconds"][:3], [0, 0.5, 1.0], atol=1e-6
    )
    assert [f.shape for f in two["frames"]][0] == (40, 56, 3)
    assert sources.frame_names(tmp_path / "in" / "one")[2] == "frame2.png"


def test_sequence_examples(tmp_path):
    tf = pytest.importorskip("tensorflow")
    (tmp_path / "frames").mkdir()
    images(tmp_path / "frames", 12, 0)
    data = [
        (tmp_path / "frames" / name).read_bytes()
        for name in sources.frame_names(tmp_path / "frames")
    ]
    example = tf.train.SequenceExample()
    lists = example.feature_lists.feature_list
    for index, each in enumerate(data):
        feature = lists["image/encoded"].feature.add()
        feature.bytes_list.value.append(each)
        stamp = lists["image/timestamp"].feature.add()
        stamp.int64_list.value.append(7_000_000 + 500_000 * index)
    other = tf.train.SequenceExample()
    path = tmp_path / "shots.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(example.SerializeToString())
        writer.write(other.SerializeToString())
    with open(path, "ab") as file:
        file.write(b"\x99" * 30)
    report = prepare.prepare(
        None,
        tmp_path / "out",
        sequence_examples=path,
        frames_per_second=2.0,
    )
    found = by_path(report)
    assert found["shots.tfrecord:00000000"]["status"] == "used"
    assert "image/encoded" in found["shots.tfrecord:00000001"]["reason"]
    assert "cut off" in found["shots.tfrecord"]["reason"]
    record = read(tmp_path / "out")[0]
    assert max(record["time_seconds"]) <= 5.5
    assert len(record["frames"]) >= 8


def test_damaged_files(tmp_path):
    """A bounded version of benchmarks/damaged.py."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    whole = []
    for name in ("a.mp4", "b.ts", "c.avi"):
        codec = "mpeg4" if name == "c.avi" else "libx264"
        path = write(folder / name, codec, count=36, noise=rng)
        whole.append(path.read_bytes())
    for number in range(24):
        data = bytearray(whole[number % 3])
        if number % 2:
            data = data[: int(rng.integers(1, len(data)))]
        else:
            for place in rng.integers(0, len(data), 20):
                data[place] ^= 1 << int(rng.integers(8))
        suffix = ("mp4", "ts", "avi")[number % 3]
        (folder / f"bad{number}.{suffix}").write_bytes(bytes(data))
    report = prepare.prepare(folder, tmp_path / "out", workers=2)
    found = by_path(report)
    assert report["videos_found"] == len(found) == 27
    assert report["videos_used"] + report["videos_set_aside"] == 27
    for name in ("a.mp4", "b.ts", "c.avi"):
        assert found[name]["status"] == "used" and not found[name]["damaged"]
    assert all(f["reason"] for f in found.values() if f["status"] != "used")
    assert json.loads((tmp_path / "out" / "report.json").read_text())
