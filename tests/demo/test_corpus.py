"""The demo corpus: what its truth promises is what its films show."""

import itertools
import json

import av
import numpy as np
import pytest

from vivi_keras.demo.categories import CATEGORIES, category_of
from vivi_keras.demo.corpus import render_corpus
from vivi_keras.demo.crops import labelled_crops
from vivi_keras.demo.film import film_frames
from vivi_keras.demo.plan import FilmSettings, plan_film
from vivi_keras.demo.sprites import paint_object

SMALL = {
    "height": 64,
    "width": 96,
    "frames_per_second": 10,
    "num_shots": (6, 7),
    "shot_seconds": (1.0, 1.5),
    "dissolve_share": 0.5,
}


@pytest.fixture(scope="module")
def corpus_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    render_corpus(directory, num_films=4, seed=5, **SMALL)
    return directory


def _corpus(directory):
    return json.loads((directory / "corpus.json").read_text())


def _truths(directory):
    films = _corpus(directory)["films"]
    return [json.loads((directory / f["truth"]).read_text()) for f in films]


def _settings(directory):
    stored = _corpus(directory)["settings"]
    lists = {k: tuple(v) for k, v in stored.items() if isinstance(v, list)}
    return FilmSettings(**{**stored, **lists})


def _drawn(directory, film):
    settings = _settings(directory)
    shots = plan_film(settings, film)
    return list(film_frames(settings, film, shots))


def _decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [
            f.to_ndarray(format="rgb24") for f in container.decode(stream)
        ]
        return np.array(frames), stream.average_rate, stream.codec.name


def _object_ids(truths):
    shots = itertools.chain.from_iterable(t["shots"] for t in truths)
    return {o["object_id"] for shot in shots for o in shot["objects"]}


def test_same_seed_same_pixels_whatever_the_count_and_processes(
    corpus_dir, tmp_path
):
    again = render_corpus(tmp_path, num_films=2, seed=5, processes=2, **SMALL)
    first = _corpus(corpus_dir)["films"]
    assert again["films"] == first[:2]
    for film in first[:2]:
        for name in (film["film"], film["truth"]):
            assert (tmp_path / name).read_bytes() == (
                corpus_dir / name
            ).read_bytes()
    assert len({film["pixels_sha256"] for film in first}) == 4


def test_another_seed_gives_other_pixels_and_other_objects(
    corpus_dir, tmp_path
):
    other = render_corpus(tmp_path, num_films=1, seed=6, **SMALL)
    digest = other["films"][0]["pixels_sha256"]
    assert digest != _corpus(corpus_dir)["films"][0]["pixels_sha256"]
    for object_id in range(12):
        first, second = (paint_object(s, object_id, 64) for s in (5, 6))
        silhouettes = [s.levels[0][..., 3] > 128 for s in (first, second)]
        assert not np.array_equal(*silhouettes)
        again = paint_object(5, object_id, 64)
        assert np.array_equal(first.levels[0], again.levels[0])
        coat = paint_object(5, object_id, 64, repaint=3)
        assert np.array_equal(first.levels[0][..., 3], coat.levels[0][..., 3])
        assert not np.array_equal(first.levels[0], coat.levels[0])


def test_files_decode_to_what_truth_says(corpus_dir):
    for number, truth in enumerate(_truths(corpus_dir)):
        frames, rate, codec = _decode(corpus_dir / truth["film"])
        assert codec == "h264"
        assert rate == truth["frames_per_second"] == 10
        assert frames.shape == (truth["num_frames"], 64, 96, 3)
        assert truth["num_frames"] == truth["shots"][-1]["stop_frame"]
        fed = np.array([pixels for pixels, _ in _drawn(corpus_dir, number)])
        assert np.abs(frames.astype(int) - fed).mean() < 8


def test_shots_tile_the_film(corpus_dir):
    kinds = []
    for truth in _truths(corpus_dir):
        shots = truth["shots"]
        assert 6 <= len(shots) <= 7
        assert shots[0]["start_frame"] == 0
        assert shots[0]["transition"]["kind"] == "start"
        for before, shot in itertools.pairwise(shots):
            fade = shot["transition"]
            kinds.append(fade["kind"])
            assert before["stop_frame"] == shot["start_frame"]
            assert before["transition"]["stop_frame"] < fade["start_frame"]
            assert (
                before["start_frame"]
                < fade["start_frame"]
                <= shot["start_frame"]
                <= fade["stop_frame"]
                < shot["stop_frame"]
            )
            lasts = fade["stop_frame"] > fade["start_frame"]
            assert lasts == (fade["kind"] == "dissolve")
    assert set(kinds) == {"cut", "dissolve"}


def test_frames_jump_at_recorded_cuts_and_nowhere_else(corpus_dir):
    for truth in _truths(corpus_dir):
        frames, _, _ = _decode(corpus_dir / truth["film"])
        frames = frames.astype(np.int32)
        steps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
        cuts, faded = set(), set()
        for shot in truth["shots"][1:]:
            fade = shot["transition"]
            if fade["kind"] == "cut":
                cuts.add(shot["start_frame"])
            span = range(fade["start_frame"], fade["stop_frame"] + 1)
            faded.update(span)
        quiet = [
            step
            for place, step in enumerate(steps, 1)
            if place not in cuts | faded
        ]
        for cut in cuts:
            assert steps[cut - 1] > 2 * np.median(quiet)
            assert steps[cut - 1] > 1.5 * max(steps[cut - 2], steps[cut])


def test_dissolves_blend_both_shots_at_the_recorded_share(corpus_dir):
    checked = 0
    for number, truth in enumerate(_truths(corpus_dir)):
        drawn = _drawn(corpus_dir, number)
        for index, shot in enumerate(truth["shots"]):
            fade = shot["transition"]
            start, stop = fade["start_frame"], fade["stop_frame"]
            for frame in range(start, stop):
                pixels, layers = drawn[frame]
                assert [layer[0] for layer in layers] == [index - 1, index]
                old, new = (
                    layer[1].draw(layer[2])[0].astype(float) for layer in layers
                )
                share = (frame - start + 1) / (stop - start + 1)
                expected = old + share * (new - old)
                assert np.abs(pixels - expected).max() <= 1.0
                checked += 1
    assert checked > 10


def test_boxes_hold_the_drawn_object_tightly(corpus_dir):
    truth = _truths(corpus_dir)[0]
    shots, seen = truth["shots"], 0
    for frame, (_, layers) in enumerate(_drawn(corpus_dir, 0)):
        for index, _, _, owner, _ in layers:
            shot = shots[index]
            if not shot["start_frame"] <= frame < shot["stop_frame"]:
                continue
            place = frame - shot["start_frame"]
            for number, known in enumerate(shot["objects"], 1):
                mine = owner == number
                box = known["boxes"][place]
                if box is None:
                    assert not mine.any()
                    continue
                left, top, right, bottom = box
                assert 0 <= left < right <= 96 and 0 <= top < bottom <= 64
                inside = np.zeros_like(mine)
                inside[top:bottom, left:right] = True
                assert not (mine & ~inside).any()
                if number == len(shot["objects"]):  # nothing covers the last
                    rows, columns = np.nonzero(mine)
                    assert [columns.min(), rows.min()] == [left, top]
                    assert [columns.max() + 1, rows.max() + 1] == [
                        right,
                        bottom,
                    ]
                seen += 1
    assert seen > 50


def test_truth_has_one_entry_per_frame(corpus_dir):
    for truth in _truths(corpus_dir):
        for shot in truth["shots"]:
            length = shot["stop_frame"] - shot["start_frame"]
            assert isinstance(shot["background"], str)
            for known in shot["objects"]:
                named = CATEGORIES[category_of(known["object_id"])]
                assert known["category"] == named
                for name in ("boxes", "visible", "x", "y", "size", "angle"):
                    assert len(known[name]) == length


def test_objects_return_in_other_poses(corpus_dir):
    truths = _truths(corpus_dir)
    for truth in truths:
        shown = {}
        for shot in truth["shots"]:
            for known in shot["objects"]:
                pose = shown.setdefault(known["object_id"], set())
                pose.add((known["x"][0], known["size"][0], known["angle"][0]))
        assert len(shown) == 2
        assert all(len(poses) >= 3 for poses in shown.values())
    casts = [_object_ids([truth]) for truth in truths]
    assert len(set.union(*casts)) == 8  # no film borrows another's objects


def test_control_without_returning_objects(tmp_path):
    render_corpus(tmp_path, num_films=2, seed=5, returning=False, **SMALL)
    truths = _truths(tmp_path)
    shown = [
        known["object_id"]
        for truth in truths
        for shot in truth["shots"]
        for known in shot["objects"]
    ]
    assert len(shown) == len(set(shown)) > 12
    per_film = [
        {k["category"] for s in t["shots"] for k in s["objects"]}
        for t in truths
    ]
    assert min(map(len, per_film)) > 2


def test_hard_cuts_and_category_options(tmp_path):
    options = {**SMALL, "dissolve_share": 0.0, "num_shots": (4, 4)}
    names = ("gear", "tree", "car", "cup")
    render_corpus(
        tmp_path,
        num_films=4,
        seed=2,
        categories=names,
        categories_per_film=1,
        objects_per_film=3,
        **options,
    )
    seen = []
    for truth in _truths(tmp_path):
        kinds = {s["transition"]["kind"] for s in truth["shots"]}
        assert kinds == {"start", "cut"}
        found = {k["category"] for s in truth["shots"] for k in s["objects"]}
        assert len(found) == 1
        assert len(_object_ids([truth])) == 3
        seen.extend(found)
    assert sorted(seen) == sorted(names)  # films share categories out evenly


def test_labelled_crops_show_the_labelled_object(corpus_dir):
    images, labels, names, films = labelled_crops(
        corpus_dir, image_size=32, per_film=6
    )
    assert images.shape == (24, 32, 32, 3) and images.dtype == np.uint8
    assert labels.dtype == films.dtype == np.int64
    assert names == list(CATEGORIES)
    assert np.bincount(films).tolist() == [6, 6, 6, 6]
    for film, truth in enumerate(_truths(corpus_dir)):
        cast = {CATEGORIES[category_of(i)] for i in _object_ids([truth])}
        assert {names[label] for label in labels[films == film]} == cast
    again = labelled_crops(corpus_dir, image_size=32, per_film=6)
    assert np.array_equal(images, again[0])


def test_crops_ask_for_a_finished_corpus(tmp_path):
    with pytest.raises(FileNotFoundError, match="corpus.json"):
        labelled_crops(tmp_path)


def test_a_broken_render_leaves_no_film(tmp_path, monkeypatch):
    def fail(*unused):
        raise OSError("disk full")

    monkeypatch.setattr("vivi_keras.demo.film._record", fail)
    with pytest.raises(OSError, match="disk full"):
        render_corpus(tmp_path, num_films=1, **SMALL)
    assert not list(tmp_path.iterdir())


def test_other_films_in_the_folder_are_refused(tmp_path):
    (tmp_path / "film_0007.mp4").touch()
    with pytest.raises(FileExistsError, match="film_0007"):
        render_corpus(tmp_path, num_films=1, **SMALL)


def test_a_finished_corpus_is_kept_and_another_refused(corpus_dir):
    path = corpus_dir / "film_0000.mp4"
    before = path.stat().st_mtime_ns
    kept = render_corpus(corpus_dir, num_films=4, seed=5, **SMALL)
    assert kept == _corpus(corpus_dir)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="seed"):
        render_corpus(corpus_dir, num_films=4, seed=6, **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_films": 0}, "num_films must be >= 1. Got: 0"),
        ({"height": 97}, "height must be an even number"),
        ({"categories": ("gear", "geer")}, r"Got: \['geer'\]"),
        ({"objects_per_shot": (1, 3)}, "objects_per_shot"),
        ({"shot_seconds": (2.0, 1.0)}, "shot_seconds"),
        ({"dissolve_share": 1.5}, "dissolve_share"),
        ({"categories": ("cup",), "categories_per_film": 2}, "1 to 1"),
    ],
)
def test_settings_that_cannot_be_met_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        render_corpus(tmp_path, **{"num_films": 1, **options})
    assert not list(tmp_path.iterdir())
