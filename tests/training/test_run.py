"""`vivi run`: from an archive to a page, and again with one more video."""

import dataclasses
import json
import re
import shutil

import pytest

import vivi_keras
from vivi_keras.data import records
from vivi_keras.demo import corpus
from vivi_keras.runs import batches, plan, workdir
from vivi_keras.training import pipeline

SETTINGS = {
    "model.weights": "none",
    "model.width": 0.125,
    "model.units": (1, 1, 1, 1),
    "data.image_size": 24,
    "data.batch_size": 4,
}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    corpus.render_corpus(
        folder / "all",
        num_films=13,
        height=64,
        width=96,
        frames_per_second=10,
        num_shots=(2, 3),
        shot_seconds=(1.0, 1.5),
        objects_per_film=1,
        dissolve_share=0,
    )
    (folder / "films").mkdir()
    for path in sorted((folder / "all").glob("*.mp4"))[:12]:
        shutil.copy(path, folder / "films")
    names = [path.name for path in sorted((folder / "films").glob("*.mp4"))]
    rows = [f"{name},{'ab'[place % 2]}" for place, name in enumerate(names)]
    (folder / "labels.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture
def slow_machine(monkeypatch):
    """A plan of few steps, as if this machine did 8 images a second."""
    monkeypatch.setattr(plan, "measure_speed", lambda config: 8.0)
    monkeypatch.setattr(plan, "LEAST_STEPS", 2)


def run(films, output, labels=True, settings=SETTINGS, **options):
    return vivi_keras.run(
        films / "films",
        films / "labels.csv" if labels else None,
        output=output,
        encoder="resnet50v2",
        levels=("frame",),
        settings=settings,
        fine_tune=False,
        workers=1,
        **{"budget_minutes": 3.0, **options},
    )


def test_a_small_archive_has_smaller_batches(films, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "measure_speed", lambda config: 30.0)
    monkeypatch.setattr(plan, "LEAST_STEPS", 2)
    # 12 films are 12 records, and the row's batches have 64 rows.
    settings = {k: v for k, v in SETTINGS.items() if k != "data.batch_size"}
    found = run(films, tmp_path, settings=settings, budget_minutes=4.0)
    config = workdir.read_config(tmp_path / "adapted/run")
    assert config.data.batch_size == 12
    assert config.train.steps == found["plan"]["steps"]


@pytest.mark.parametrize("count", [2, 3, 12, 13, 63, 64, 1000])
def test_all_levels_see_equally_many_images_per_step(count, monkeypatch):
    monkeypatch.setattr(records, "Records", lambda dataset: range(count))
    rows = ("frame", "shot", "frame+shot", "vivi")
    configs = [pipeline._config(name, "_demo") for name in rows]
    pipeline._fit_batches(configs, "data", {})
    (images,) = {batches.images_per_step(c) for c in configs}
    sizes = [config.data.batch_size for config in configs]
    assert max(sizes) <= count and min(sizes) >= 1
    # As large as possible: an even number of rows of 8 images.
    assert images == 8 * (min(count, 64) // 2 * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "other"}, "must name videos .* 'gone.mp4'"),
        ({"videos": "one"}, "at least 2, .* Got: 1 that can be opened"),
    ],
)
def test_what_cannot_work_is_refused_before_anything(
    films, tmp_path, options, message, monkeypatch
):
    def measured(config):
        raise AssertionError("it took its time")

    monkeypatch.setattr(plan, "measure_speed", measured)
    videos, labels = films / "films", films / "labels.csv"
    if options.pop("videos", None):
        videos, labels = tmp_path / "one", None
        videos.mkdir()
        shutil.copy(sorted((films / "films").glob("*.mp4"))[0], videos)
    if options.pop("labels", None):
        labels = tmp_path / "labels.csv"
        labels.write_text("path,label\ngone.mp4,a\nalso.mp4,b\n")
    with pytest.raises(ValueError, match=message):
        vivi_keras.run(
            videos,
            labels,
            output=tmp_path / "out",
            encoder="resnet50v2",
            **options,
        )


def test_from_an_archive_to_a_page_and_again(films, tmp_path, slow_machine):
    output = tmp_path / "out"
    lines = []
    plan_only = run(films, output, dry_run=True, show=lines.append)
    assert not output.exists() and plan_only["page"] is None
    assert "Archive: 12 videos" in lines[0] and "Time: about" in lines[0]
    found = run(films, output)
    page = found["page"].read_text()
    assert found["verdict"]["verdict"] in page
    assert vivi_keras.load(found["module"]) is not None
    for path in re.findall(r'href="([^"#]+)[#"]', page):
        assert (output / path).resolve().exists(), path
    assert re.search(r'href="[^"]*film_00\d\d.mp4#t=', page)
    before = (output / "adapted/run/metrics.csv").read_bytes()
    # One more video: it is prepared and embedded, and nothing is trained.
    shutil.copy(films / "all" / "film_0012.mp4", films / "films")
    try:
        again = run(films, output)
    finally:
        (films / "films" / "film_0012.mp4").unlink()
    assert again["verdict"] == json.loads(
        (output / "adapted/run/verdict/summary.json").read_text()
    )
    assert (output / "adapted/run/metrics.csv").read_bytes() == before
    assert "<b>13</b>videos" in again["page"].read_text()
    index = vivi_keras.archive.open_index(again["index"])
    assert "film_0012.mp4" in {*index.shots["video"]}


def test_given_steps_need_no_measurement(films, tmp_path, monkeypatch):
    monkeypatch.delattr(plan, "measure_speed")
    lines, settings = [], {**SETTINGS, "seed": 3}
    options = {"settings": settings, "steps": 5}
    plan_only = run(films, tmp_path, dry_run=True, show=lines.append, **options)
    assert "Training: 5 steps at 24 pixels\nTime: prepare" in lines[0]
    assert plan_only["plan"]["images_per_second"] is None
    found = run(films, tmp_path, show=None, **options)
    config = workdir.read_config(tmp_path / "adapted/run")
    assert config.train.steps == 5 and config.seed == 3
    assert found["verdict"] is not None
    with pytest.raises(ValueError, match="steps 5 before, 6 now"):
        run(films, tmp_path, show=None, **{**options, "steps": 6})


@pytest.mark.parametrize(
    ("steps", "between"),
    [(1, 1), (7, 2), (40, 10), (59, 15), (60, 15), (100, 15), (200, 20)],
)
def test_short_runs_are_scored_less_often(steps, between):
    assert pipeline._steps_between_probes(steps) == between


def test_trials_of_given_steps():
    found = plan.Plan(4.0, 96, 48, 60, None, {})
    assert plan.trial_steps(found, 3, 512) == 12
    assert plan.trial_steps(dataclasses.replace(found, steps=3), 3, 512) == 1


def test_without_labels(films, tmp_path, slow_machine):
    found = run(films, tmp_path / "out", labels=False, show=None)
    assert found["verdict"] is None
    assert "there were no labels" in found["page"].read_text()
    assert vivi_keras.load(found["module"]) is not None


@pytest.mark.parametrize(
    "options, message",
    [
        ({"budget_minutes": 0.2}, "budget must be at least"),
        ({"levels": ("film",)}, "levels must be of frame, shot"),
        ({"steps": 0}, "steps must be an int .* Got: 0"),
        ({"labels": "one.csv"}, "at least 2 classes"),
        ({"labels": "nothing.csv"}, "labels must be a CSV file"),
        ({"videos": "nowhere"}, "videos must be a folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    films, tmp_path, slow_machine, options, message
):
    (tmp_path / "one.csv").write_text("path,label\nfilm_0000.mp4,a\n")
    given = {
        "videos": films / "films",
        "labels": films / "labels.csv",
        "encoder": "resnet50v2",
        "levels": ("frame",),
        "settings": SETTINGS,
        "show": None,
    }
    for key in ("labels", "videos"):
        if key in options:
            options = {**options, key: tmp_path / options[key]}
    given.update(options)
    with pytest.raises(ValueError, match=message):
        vivi_keras.run(output=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_an_output_of_another_archive_is_refused(films, tmp_path, slow_machine):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/plan.json").write_text(
        json.dumps({"inputs": {"videos": "other"}})
    )
    with pytest.raises(ValueError, match="of another one: videos 'other'"):
        run(films, tmp_path / "out")
