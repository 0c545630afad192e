"""vivi-search: exact and approximate answers, queries, the page."""

import base64
import json
import re
import shutil
import subprocess
import sys
import urllib.parse

import archive_helpers
import cv2
import evaluation_modules
import numpy as np
import pytest

from vivi_keras import archive
from vivi_keras.archive import index as index_lib
from vivi_keras.archive import pictures, search


def slow_search(vectors, counts, vector, k):
    """(shot, best frame, cosine) of the k best shots, one by one."""
    found, place = [], 0
    for shot, count in enumerate(counts):
        scores = []
        for row in range(place, place + count):
            frame = vectors[row].astype(np.float64)
            lengths = np.linalg.norm(frame) * np.linalg.norm(vector)
            scores.append(float(frame @ vector) / max(lengths, 1e-12))
        best = int(np.argmax(scores))
        found.append((shot, place + best, scores[best]))
        place += count
    return sorted(found, key=lambda item: -item[2])[:k]


@pytest.mark.parametrize("k", [1, 3, 1000])
def test_search_equals_a_slow_reference(tmp_path, k):
    generator = np.random.default_rng(0)
    # One shot has more frames, all alike, than are first looked at.
    counts = [3, 1, 60, *generator.integers(1, 6, 20).tolist()]
    vectors = generator.normal(size=(sum(counts), 24))
    vectors[4:64] = vectors[4] + 0.05 * generator.normal(size=(60, 24))
    vectors = (vectors * generator.uniform(0.1, 9, (len(vectors), 1))).astype(
        np.float16
    )
    vectors[-1] = 0.0
    index = archive_helpers.write_index(tmp_path / "index", vectors, counts)
    np.testing.assert_array_equal(index.vectors, vectors)
    for number in (4, 0, 70):
        vector = vectors[number].astype(np.float64) + 0.1
        hits = index.search(vector, k)
        wanted = slow_search(vectors, counts, vector, k)
        assert [(hit.shot_row, hit.row) for hit in hits] == [
            item[:2] for item in wanted
        ]
        np.testing.assert_allclose(
            [hit.score for hit in hits], [item[2] for item in wanted], atol=1e-6
        )
        for hit in hits:
            assert hit.video == f"{hit.shot_row // 3}.mp4"
            assert hit.shot == hit.shot_row % 3
            first = sum(counts[: hit.shot_row])
            assert hit.start_seconds == 10.0 * hit.shot
            assert hit.seconds == hit.start_seconds + hit.row - first


def test_approximate_search(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(600, 16)).astype(np.float16)
    index = archive_helpers.write_index(tmp_path, vectors, [2] * 300)
    with pytest.raises(ValueError, match="Run vivi-embed --approximate"):
        index.search(vectors[0], approximate=True)
    monkeypatch.setattr(index_lib, "NUM_PROBES", 1)
    recall = index.build_approximate()
    assert 0.1 < recall < 0.9  # one of 15 lists is searched
    assert index.manifest["approximate"]["recall_at_10"] == recall
    # More lists are searched where one holds too few frames.
    hits = archive.open_index(tmp_path).search(vectors[0], 300, True)
    assert {hit.shot_row for hit in hits} == {*range(300)}
    monkeypatch.undo()
    index = archive.open_index(tmp_path)
    assert index._lists.nlist == 15
    for row in (0, 100, 599):
        exact, near = (
            index.search(vectors[row], 5, flag) for flag in (False, True)
        )
        assert [hit.row for hit in exact] == [hit.row for hit in near]
        np.testing.assert_allclose(
            [hit.score for hit in exact], [hit.score for hit in near], atol=1e-3
        )
    # A part more: the lists are refused, then extended.
    more = generator.normal(size=(4, 16)).astype(np.float16)
    other = archive_helpers.write_index(tmp_path / "other", more, [2, 2])
    part = other._store.parts[0]
    name = "00900"
    for kind in ("frames", "shots"):
        shutil.copy(
            tmp_path / "other" / "parts" / f"{part['name']}.{kind}.parquet",
            tmp_path / "parts" / f"{name}.{kind}.parquet",
        )
    index = archive.open_index(tmp_path)
    index._store.parts.append({**part, "name": name})
    index._store.save()
    index = archive.open_index(tmp_path)
    with pytest.raises(ValueError, match="Got: none, or an older one"):
        index.search(vectors[0], approximate=True)
    index.build_approximate()
    index = archive.open_index(tmp_path)
    assert index.search(more[3], 1, approximate=True)[0].row == 603
    path = tmp_path / "approximate.faiss"
    whole = path.read_bytes()
    for damaged in (whole[:100], whole[:-1], b"", bytes(len(whole))):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="approximate.faiss is damaged"):
            archive.open_index(tmp_path).search(vectors[0], approximate=True)
    path.write_bytes(whole)
    index = archive.open_index(tmp_path)
    del index.manifest["approximate"]["bytes"]
    with pytest.raises(ValueError, match="is damaged .* instead of None"):
        index.search(vectors[0], approximate=True)


def test_lists_are_made_anew_when_the_index_has_grown(tmp_path, monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float16)
    vectors[7] = 0  # has no direction, but is kept
    index = archive_helpers.write_index(tmp_path, vectors, [2] * 300)
    for num_lists, expected in ((15, 15), (30, 15), (31, 31)):
        monkeypatch.setattr(index_lib, "_num_lists", lambda _, n=num_lists: n)
        assert index.build_approximate() > 0.99
        assert archive.open_index(tmp_path)._lists.nlist == expected


@pytest.mark.parametrize(
    ("num_frames", "num_lists"),
    [(1, 1), (79, 1), (600, 15), (160_000, 1_600), (1_000_000, 4_000)],
)
def test_number_of_lists(num_frames, num_lists):
    assert index_lib._num_lists(num_frames) == num_lists


def test_bad_vectors_and_an_empty_index(tmp_path):
    vectors = np.ones((2, 8), np.float16)
    index = archive_helpers.write_index(tmp_path / "two", vectors, [2])
    for vector, message in (
        (np.ones(9), r"shape \(8,\).*Got: \(9,\)"),
        (np.ones((1, 8)), r"shape \(8,\)"),
        (np.zeros(8), "not all zero"),
        (np.full(8, np.nan), "must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            index.search(vector)
    with pytest.raises(ValueError, match="k must be an int from 1"):
        index.search(np.ones(8), 0)
    empty = archive_helpers.write_index(tmp_path / "none", vectors[:0], [])
    assert empty.search(np.ones(8)) == []
    with pytest.raises(ValueError, match="must have frames"):
        empty.build_approximate()


def command(folder, *flags):
    return subprocess.run(
        [sys.executable, "-m", "vivi_keras.training.search", *flags],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_a_frame_of_a_video_finds_its_shot(made, tmp_path):
    page = tmp_path / "pages" / "hits.html"
    done = command(
        made,
        *("--index=index", "--video=films/deep/b.mp4", "--seconds=3.7"),
        *("--k=4", f"--output={page}"),
    )
    assert done.returncode == 0, done.stderr
    head, first = done.stdout.splitlines()[:2]
    assert head.split() == ["score", "video", "shot", "best", "second"]
    assert re.match(r" *0\.9\d\d|1\.000", first.strip())
    assert "deep/b.mp4" in first and "0:03.0-0:04.5" in first
    text = page.read_text("utf-8")
    figures = text.split("<figure>")[1:]
    assert len(figures) == 4
    # The shot of this colour in b.mp4, which is played from its start.
    link = re.search(r'href="([^"]+)"', figures[0])[1]
    path, _, times = link.partition("#")
    assert times == "t=3.00,4.50"
    found = (page.parent / urllib.parse.unquote(path)).resolve()
    assert found == (made / "films" / "deep" / "b.mp4").resolve()
    for figure in figures:
        data = re.search(r"base64,([^\"]+)", figure)[1]
        image = cv2.imdecode(
            np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR
        )
        assert image.shape == (48, 64, 3)
    # The first picture is green, as the shot is.
    data = re.search(r"base64,([^\"]+)", figures[0])[1]
    image = cv2.imdecode(
        np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR
    )
    assert image.mean(axis=(0, 1)).argmax() == 1


def test_an_image_as_json(made, tmp_path):
    image = np.full((600, 800, 3), archive_helpers.COLOURS["blue"], np.uint8)
    cv2.imwrite(str(tmp_path / "blau ü.png"), image[..., ::-1])
    done = command(
        made,
        "--index=index",
        f"--image={tmp_path / 'blau ü.png'}",
        "--json",
        "--k=3",
    )
    assert done.returncode == 0, done.stderr
    hits = json.loads(done.stdout)
    assert len(hits) == 3
    for hit in hits:
        colours = archive_helpers.FILMS[hit["video"]]
        assert colours[hit["shot"]] == "blue"
        assert hit["start_seconds"] <= hit["seconds"] < hit["stop_seconds"]


def test_moved_files(copied, tmp_path):
    """The videos, the data set and the module may each have moved."""
    for name in ("films", "data", "module"):
        (copied / name).rename(tmp_path / f"moved {name}")
    manifest = copied / "index" / "index.json"
    told = json.loads(manifest.read_text())
    told["module"]["path"] = str(copied / "module")
    told["source"]["path"] = str(copied / "data")
    told["videos"] = str(copied / "films")
    manifest.write_text(json.dumps(told))
    video = f"--video={tmp_path / 'moved films' / 'd.mp4'}"
    flags = ["--index=index", video, "--seconds=0.2", "--k=4"]
    done = command(copied, *flags)
    assert done.returncode == 1
    assert "Say where it is with --module" in done.stderr
    flags.append(f"--module={tmp_path / 'moved module'}")
    page = tmp_path / "hits.html"
    done = command(copied, *flags, f"--output={page}")
    assert done.returncode == 0, done.stderr
    # The four green shots.
    assert "d.mp4" in done.stdout and "c ü.mp4" not in done.stdout
    assert "not found, so without links: " in done.stderr
    text = page.read_text("utf-8")
    assert "no pictures, since the data set moved" in text
    assert "href" not in text and "not found" in text
    films = f"--videos={tmp_path / 'moved films'}"
    done = command(copied, *flags, f"--output={page}", films)
    assert "not found" not in done.stderr
    assert 'href="moved%20films/d.mp4#t=0.00,1.50"' in page.read_text("utf-8")


def test_pictures_of_a_data_set_that_changed(copied):
    index = archive.open_index(copied / "index")
    assert pictures.Pictures(index).get(0).startswith("data:image/jpeg")
    (copied / "films" / "a.mp4").unlink()
    archive_helpers.prepared(copied / "films", copied / "data")
    manifest = index.manifest["source"]
    manifest["path"] = str(copied / "data")
    found = pictures.Pictures(index)
    assert found.get(0) is None and "run vivi-embed" in found.missing


def test_another_module_is_refused(copied):
    index = archive.open_index(copied / "index")
    evaluation_modules.save(
        copied / "other", evaluation_modules.TinyEncoder(seed=1)
    )
    own = index.manifest["module"]["sha256"]
    with pytest.raises(ValueError, match=f"{own}, and module .* with hash "):
        search.open_encoder(index, copied / "other")


def test_queries_that_cannot_be_read(made, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    film = made / "films" / "a.mp4"
    with pytest.raises(ValueError, match="bad.jpg: no image that Pillow"):
        search.read_image(tmp_path / "bad.jpg")
    with pytest.raises(ValueError, match="no.jpg, not a file"):
        search.read_image(tmp_path / "no.jpg")
    with pytest.raises(ValueError, match="no.mp4, not a file"):
        search.read_frame(tmp_path / "no.mp4", 0.0)
    with pytest.raises(ValueError, match="bad.mp4: cannot be opened"):
        search.read_frame(tmp_path / "bad.mp4", 0.0)
    with pytest.raises(ValueError, match="4.50 s long. Got: 4.6"):
        search.read_frame(film, 4.6)
    with pytest.raises(ValueError, match="0 or more. Got: -1"):
        search.read_frame(film, -1)
    # Red, green, blue, for 1.5 seconds each.
    for seconds, channel in ((0.0, 0), (1.49, 0), (1.5, 1), (4.49, 2)):
        frame = search.read_frame(film, seconds)
        assert frame.shape == (48, 64, 3)
        assert frame.mean(axis=(0, 1)).argmax() == channel


def test_bad_flags(made):
    for flags, message in (
        (["--index=index"], "One of --image and --video"),
        (
            ["--index=index", "--video=a.mp4"],
            "--seconds must be given with --video",
        ),
        (["--image=a.jpg"], "--index must be given"),
        (["--index=films", "--image=films/a.mp4"], "written by vivi-embed"),
    ):
        done = command(made, *flags)
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_names_are_escaped_on_pages_and_in_links(tmp_path):
    """A name may hold what HTML and URLs use."""
    vectors = np.eye(4, dtype=np.float16)
    index = archive_helpers.write_index(tmp_path / "index", vectors, [2, 2])
    name = "<b>50% #1?.mp4"
    index.shots["video"] = name
    (tmp_path / name).write_bytes(b"")
    page = tmp_path / "hits.html"
    hits = index.search(vectors[0])
    search.write(page, index, hits, "<q>", None, videos=tmp_path)
    text = page.read_text("utf-8")
    assert "<b>50" not in text and "&lt;b&gt;50% #1?.mp4" in text
    assert "&lt;q&gt;" in text
    link = re.search(r'href="([^"]+)"', text)[1]
    assert link == "%3Cb%3E50%25%20%231%3F.mp4#t=0.00,10.00"
