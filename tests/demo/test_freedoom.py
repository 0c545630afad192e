"""The domain of walks: its labels hold, and its splits share no map."""

import os
import subprocess
import sys

import av
import numpy as np
import pytest

from vivi_keras import prepare
from vivi_keras.data import range_labels
from vivi_keras.demo import freedoom, walks
from vivi_keras.features import frames


def _rows(labels, shots=None):
    shots = shots or [0] * len(labels)
    return [
        {"label": label, "shot": shot}
        for label, shot in zip(labels, shots, strict=True)
    ]


def _ranges(rows):
    return freedoom.ranges(rows, lambda row: row["label"])


def test_a_range_is_as_long_as_its_label_holds():
    rows = _rows(["a"] * 7 + ["b"] + ["a"] * 6 + [None] * 9)
    # Between frames, of which there are 35 / 3 a second.
    assert _ranges(rows) == [
        (0.0, 0.557, "a"),
        (0.557, 0.643, "b"),
        (0.643, 1.157, "a"),
    ]


def test_a_range_ends_at_a_cut():
    rows = _rows(["a"] * 14, [0] * 7 + [1] * 7)
    assert _ranges(rows) == [(0.0, 0.557, "a"), (0.557, 1.157, "a")]


def test_no_map_is_in_two_splits():
    for num_maps in (6, 12, 59):
        found = freedoom.split_maps(num_maps)
        every = [name for names in found.values() for name in names]
        assert len({*every}) == len(every) == num_maps
        assert all(found.values())
        assert {*every} <= {*walks.MAPS}
    assert {k: len(v) for k, v in freedoom.split_maps().items()} == {
        "train": 30,
        "validation": 8,
        "test": 21,
    }


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_maps": 5}, "num_maps must be .* 6 to 59. Got: 5"),
        ({"hours": 0.5}, "hours must be .* 1.0 to 1000. Got: 0.5"),
        ({"workers": 0}, "workers must be .* Got: 0"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        freedoom.make_domain(tmp_path / "domain", **arguments)
    assert not (tmp_path / "domain").exists()


def test_vizdoom_is_named_if_it_is_missing(tmp_path):
    (tmp_path / "vizdoom.py").write_text("raise ImportError('no vizdoom')")
    done = subprocess.run(
        [sys.executable, "-m", "vivi_keras.demo.freedoom"]
        + [f"--output={tmp_path / 'domain'}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "pip install 'vivi-keras[domain]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "domain").exists()


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    """Walks of one shot each through six maps, in the usual folders."""
    pytest.importorskip("vizdoom", reason="pip install 'vivi-keras[domain]'")
    folder = tmp_path_factory.mktemp("domain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freedoom, "NUM_SHOTS", 1)
        found = freedoom.make_domain(folder, hours=0.01, num_maps=6, show=None)
    return folder, found


def _pixels(path):
    with av.open(str(path)) as container:
        return np.stack(
            [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        )


def test_each_frame_of_a_walk_has_a_row(domain):
    folder, found = domain
    paths = sorted(folder.glob("*/videos/*.mp4"))
    assert len(paths) == sum(split["videos"] for split in found.values())
    frames = _pixels(paths[0])
    rows = walks.read_walk(paths[0])
    assert frames.shape == (len(rows), walks.HEIGHT, walks.WIDTH, 3)
    assert frames.std() > 10
    assert rows[10]["seconds"] == pytest.approx(10 * 3 / 35, abs=1e-3)
    assert not list(folder.rglob("*.part.mp4"))


def test_a_walk_is_the_same_again(domain, tmp_path, monkeypatch):
    folder, _ = domain
    path = min(folder.glob("train/videos/*.mp4"))
    name, _, number = path.stem.rpartition("-")
    monkeypatch.chdir(tmp_path)
    again = walks.record_walk(tmp_path / "again", name, int(number), 1)
    np.testing.assert_array_equal(_pixels(again), _pixels(path))
    assert walks.read_walk(again) == walks.read_walk(path)
    other = walks.record_walk(tmp_path / "other", name, int(number), 1, seed=1)
    assert walks.read_walk(other) != walks.read_walk(path)


def test_each_stored_frame_gets_its_label(domain, tmp_path):
    folder, _ = domain
    video = max(folder.glob("train/videos/*.mp4"))
    rows = walks.read_walk(video)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / video.name).write_bytes(video.read_bytes())
    prepare.prepare(
        tmp_path / "videos",
        tmp_path / "data",
        frames_per_second=12,
        max_frames_per_shot=200,
        short_side=32,
    )
    file = tmp_path / "depth.csv"
    lines = (folder / "train/labels/depth.csv").read_text().splitlines()
    mine = [line for line in lines[1:] if line.startswith(video.name)]
    file.write_text("\n".join([lines[0], *mine]))
    footage = frames.StoredFrames(tmp_path / "data").footage
    assert len(footage.seconds) == len(rows)
    joined, depths = range_labels.join(footage, file), {}
    for found, label in zip(joined.frame_rows, joined.labels, strict=True):
        for row in found:
            depths[int(row)] = joined.class_names[label]
    edges = (5, 9, 14, 22, 40)
    assert depths == {
        place: f"depth {sum(row['ahead'] >= edge for edge in edges)}"
        for place, row in enumerate(rows)
    }


def test_labels_can_be_read(domain):
    folder, found = domain
    for split in freedoom.SPLITS:
        for task in freedoom.TASKS:
            file = folder / split / "labels" / f"{task}.csv"
            rows, num_empty = range_labels.read_range_labels(file)
            assert len(rows) == found[split][task]
            assert num_empty == 0
            for row in rows:
                assert (folder / split / "videos" / row.path).exists()
    places = {
        row.label
        for row in range_labels.read_range_labels(
            folder / "revisits/labels/place.csv"
        )[0]
    }
    assert places <= {*freedoom.split_maps(6)["train"]}


def test_what_exists_is_not_recorded_again(domain, monkeypatch):
    folder, found = domain
    paths = {p: p.stat().st_mtime_ns for p in folder.rglob("*.mp4")}
    monkeypatch.setattr(freedoom, "NUM_SHOTS", 1)
    again = freedoom.make_domain(folder, hours=0.01, num_maps=6, show=None)
    assert again == found
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.mp4")} == paths


def test_an_archive_of_places(tmp_path):
    pytest.importorskip("vizdoom", reason="pip install 'vivi-keras[domain]'")
    options = {"num_maps": 2, "num_walks": 2, "num_shots": 1, "show": None}
    videos, labels = freedoom.make_places(tmp_path, workers=2, **options)
    rows, _ = range_labels.read_range_labels(labels)
    assert [row.path for row in rows] == [
        f"{name}-{number}.mp4"
        for number in range(2)
        for name in dict.fromkeys(row.label for row in rows)
    ]
    assert {path.name for path in videos.glob("*.mp4")} == {
        row.path for row in rows
    }
    assert len({row.label for row in rows}) == 2
    # The whole video has the label.
    for row in rows:
        assert row.start_seconds == 0 and row.stop_seconds is None
    with pytest.raises(FileExistsError, match="seed.*Got.*seed"):
        freedoom.make_places(tmp_path, seed=1, **options)
    with pytest.raises(ValueError, match="num_maps must be .* Got: 1"):
        freedoom.make_places(tmp_path / "one", num_maps=1)


def test_each_process_works_in_a_folder_of_its_own(tmp_path, monkeypatch):
    # The game ends a process that finds the folder of another one.
    monkeypatch.chdir(tmp_path)
    folders = set()
    for _ in range(2):
        freedoom._enter_own_folder(tmp_path)
        folders.add(os.getcwd())
    assert len(folders) == 2
    assert all(os.path.dirname(path) == str(tmp_path) for path in folders)


def test_a_folder_of_another_domain_is_refused(domain):
    folder, _ = domain
    with pytest.raises(FileExistsError, match="num_maps.*Got.*num_maps"):
        freedoom.make_domain(folder, num_maps=7)
