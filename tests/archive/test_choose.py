"""Shots suggested for labelling, and shots that occur again."""

import csv
import shutil
import subprocess
import sys

import archive_helpers
import numpy as np
import pytest

from vivi_keras import archive, data
from vivi_keras.archive import choose
from vivi_keras.data import batches, records


@pytest.fixture
def clusters(tmp_path):
    """Six tight clusters of 30 to 5 shots, and ten lonely shots."""
    generator = np.random.default_rng(0)
    sizes = (30, 25, 20, 15, 10, 5)
    centres = np.linalg.qr(generator.normal(size=(40, 40)))[0]
    vectors = [
        centre + 0.05 * generator.normal(size=(size, 40))
        for centre, size in zip(centres, sizes, strict=False)
    ]
    vectors = np.concatenate([*vectors, centres[10:20]]).astype("f2")
    kinds = np.concatenate([np.repeat(np.arange(6), sizes), np.full(10, -1)])
    index = archive_helpers.write_index(
        tmp_path / "index", vectors, [1] * len(vectors)
    )
    return index, kinds, vectors.astype(np.float64)


def test_suggestions_are_diverse_and_typical(clusters):
    index, kinds, vectors = clusters
    rows = choose.suggest(index, 6)
    assert len(set(rows)) == 6
    got = [kinds[row] for row in rows]
    assert {0, 1, 2, 3, 4} <= {*got}
    # Of its cluster, each is among those nearest to all others.
    for row in rows:
        same = np.flatnonzero(kinds == kinds[row])
        if len(same) > 20:
            away = np.linalg.norm(
                vectors[same] - vectors[same].mean(axis=0), axis=1
            )
            assert away[same == row][0] <= np.median(away)
    # By chance, so many clusters are met rarely: see that it is no accident.
    generator = np.random.default_rng(0)
    drawn = [
        len({*kinds[generator.choice(len(kinds), 6, False)]} - {-1})
        for _ in range(200)
    ]
    assert np.mean(np.array(drawn) >= 5) < 0.2
    assert choose.suggest(index, 6) == rows


def test_what_is_labelled_and_its_duplicates_are_left_out(clusters):
    index, kinds, vectors = clusters
    labelled = [*np.flatnonzero(kinds == 0)[:2], *np.flatnonzero(kinds == 1)]
    rows = choose.suggest(index, 8, labelled)
    assert not {*rows} & {*labelled}
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    both = unit[[*rows, *labelled]]
    cosines = both @ both.T
    np.fill_diagonal(cosines, 0)
    assert cosines[: len(rows)].max() < choose.THRESHOLD + 1e-3
    # What has no label yet is met.
    assert {2, 3, 4} <= {kinds[row] for row in rows}
    everything = choose.suggest(index, 10_000)
    assert len(everything) == len({*everything}) <= index.num_shots
    assert choose.suggest(index, 5, range(index.num_shots)) == []


def test_features_that_all_point_one_way(tmp_path):
    """Every cosine is above 0.98, as with an untrained encoder."""
    generator = np.random.default_rng(0)
    vectors = 10 + generator.normal(size=(60, 40)).astype("f2") / 2
    index = archive_helpers.write_index(tmp_path, vectors, [1] * 60)
    assert len(choose.suggest(index, 30)) == 30


def test_the_unsure_come_first(clusters):
    index, kinds, _ = clusters
    margins = np.where(kinds == 3, 0.1, 0.9)
    rows = choose.suggest(index, 1, margins=margins)
    assert [kinds[row] for row in rows] == [3]


def test_duplicates_equal_a_slow_reference(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "_BLOCK", 7)
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(30, 8)).astype("f2")
    vectors[20] = 2 * vectors[3]  # videos 6 and 1
    vectors[4] = vectors[3]  # the same video: not told
    vectors[29] = vectors[11] + generator.normal(size=8) * 0.02
    index = archive_helpers.write_index(tmp_path, vectors, [1] * 30)
    for threshold in (0.5, 0.98, 1.0):
        wanted = []
        for a in range(30):
            for b in range(a + 1, 30):
                x, y = (vectors[i].astype(np.float64) for i in (a, b))
                cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
                if cosine >= threshold - 1e-6 and a // 3 != b // 3:
                    wanted.append((cosine, a, b))
        found = choose.duplicates(index, threshold)
        assert {pair[:2] for pair in found} == {item[1:] for item in wanted}
        scores = [pair[2] for pair in found]
        assert scores == sorted(scores, reverse=True)
        np.testing.assert_allclose(
            scores,
            sorted((item[0] for item in wanted), reverse=True),
            atol=1e-5,
        )
    assert {(3, 20), (4, 20), (11, 29)} == {
        pair[:2] for pair in choose.duplicates(index)
    }
    for threshold in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"must be in \(0, 1\]"):
            choose.duplicates(index, threshold)


def check_batches(folder, rows):
    """Batches give exactly the shots of a listed pair the same number."""
    given = {"batch_size": 4, "num_shots": 3, "image_size": 24, "num_steps": 3}
    known = data.video_batches(
        folder / "data", duplicates=folder / "index", **given
    )
    plain = data.video_batches(folder / "data", **given)
    index, numbers = archive.open_index(folder / "index"), {}
    for batch, other in zip(known, plain, strict=True):
        batch = {name: value.numpy() for name, value in batch.items()}
        found = batch.pop("duplicates")
        assert batch.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_array_equal(batch[name], value)
        for video, of_clip in zip(batch["video_id"], found, strict=True):
            numbers.setdefault(int(video), set()).add(tuple(of_clip.tolist()))
    videos = index.shots.groupby("video_id")["video"].first()
    twice = [numbers.pop(i) for i in videos.index if videos[i] in PAIR]
    assert len(twice) == 2 and twice[0] == twice[1]
    ((green, blue, none),) = twice[0]
    assert green >= 0 and blue >= 0 and green != blue and none == -1
    assert {n for clips in numbers.values() for c in clips for n in c} == {-1}
    assert [row["shot_1"] for row in rows] == ["0", "1"]


PAIR = ("again.mp4", "once.mp4")


def test_lists_of_duplicates_that_do_not_fit(copied):
    groups = batches.duplicate_groups
    with pytest.raises(ValueError, match=r"index, without duplicates.csv"):
        groups(copied / "index", copied / "data")
    choose.list_duplicates(archive.open_index(copied / "index"), 0.5)
    assert groups(copied / "index", copied / "data")
    path = copied / "index" / "duplicates.csv"
    good = path.read_text("utf-8")
    path.write_text(good.splitlines()[0] + "\n0.99,a.mp4\n", "utf-8")
    with pytest.raises(ValueError, match="row 2 of .*must have integers in"):
        groups(copied / "index", copied / "data")
    path.write_text(good, "utf-8")
    own = records.fingerprint(copied / "data")
    archive_helpers.film(copied / "films" / "new.mp4", ("green", "blue"), 5)
    archive_helpers.prepared(copied / "films", copied / "more")
    more = records.fingerprint(copied / "more")
    with pytest.raises(ValueError, match=f"{more}. Got: .*fingerprint {own}"):
        groups(copied / "index", copied / "more")
    # A list that lacks the new video is deleted with the video's arrival.
    archive.embed(copied / "module", copied / "index", dataset=copied / "more")
    assert not path.exists()


def test_the_commands(made, tmp_path):
    """The same footage in two videos is listed; one of it is suggested."""
    films = tmp_path / "films"
    shutil.copytree(made / "films", films)
    archive_helpers.film(films / "again.mp4", ("green", "blue"), 0)
    archive_helpers.film(films / "once.mp4", ("green", "blue"), 0)
    (films / "once.mp4").write_bytes((films / "again.mp4").read_bytes() + b"\0")
    archive_helpers.prepared(films, tmp_path / "data")
    archive.embed(
        made / "module",
        tmp_path / "index",
        dataset=tmp_path / "data",
        image_size=32,
    )

    def run(name, *flags):
        done = subprocess.run(
            [sys.executable, "-m", f"vivi_keras.training.{name}", *flags],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done

    done = run("embed", "--duplicates", "--output=index", "--threshold=0.99999")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == 2 and "2 pairs" in done.stderr
    for row, start in zip(rows, ("0.000", "1.500"), strict=True):
        assert {row["path_1"], row["path_2"]} == {"again.mp4", "once.mp4"}
        assert row["start_seconds_1"] == row["start_seconds_2"] == start
    check_batches(tmp_path, rows)
    run(
        "label",
        "--suggest=20",
        "--index=index",
        "--output=l.csv",
        "--videos=films",
    )
    with open(tmp_path / "l.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    twice = [r for r in rows if r["path"] in ("again.mp4", "once.mp4")]
    assert len(twice) <= 2 and 3 <= len(rows) < 16
    assert all(row["label"] == "" for row in rows)
