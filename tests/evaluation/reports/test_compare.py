"""Differences with intervals by hand, and reports of real runs."""

import functools
import json
import sys

import evaluation_modules
import numpy as np
import pytest
from scipy import stats

from vivi_keras import files as files_lib
from vivi_keras.evaluation import evaluate
from vivi_keras.evaluation.protocols import finetune, frozen
from vivi_keras.evaluation.reports import (
    compare,
    comparison_page,
    maps,
    pictures,
    scores,
)
from vivi_keras.evaluation.tasks import vtab_tasks


def row(encoder, task, seed, accuracy, protocol="knn", group="natural"):
    return {
        "encoder": encoder,
        "task": task,
        "group": group,
        "protocol": protocol,
        "seed": seed,
        "accuracy": accuracy,
    }


def write(folder, rows, settings=None, fingerprint="f", digest=None):
    """A results folder as vivi-evaluate leaves it."""
    tasks = scores.unique(r["task"] for r in rows)
    names = scores.unique(r["encoder"] for r in rows)
    files_lib.write_json(
        folder / "results.json",
        {
            "rows": rows,
            "tasks": {
                t: {"group": "natural", "fingerprint": fingerprint}
                for t in tasks
            },
            "encoders": [
                {"name": n, "sha256": digest or f"{folder.name}-{n}"}
                for n in names
            ],
            "skipped": {},
            "not_run": [],
            "versions": {"python": "3"},
            "settings": {
                "suite": "offline",
                "image_size": 64,
                "max_test": 100,
                "sweep": {},
                **({} if settings is None else settings),
            },
        },
    )
    return str(folder)


def test_difference_is_the_paired_t_interval():
    ours, theirs = [61.0, 64.0, 63.0], [60.0, 61.0, 61.0]
    found = compare.difference(ours, theirs)
    reference = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found["mean"] == pytest.approx(2.0)
    assert found["low"] == pytest.approx(reference.low)
    assert found["high"] == pytest.approx(reference.high)
    # By hand: deviation 1, 2 degrees of freedom: 4.303 / sqrt(3).
    assert found["high"] - 2.0 == pytest.approx(4.3027 / 3**0.5, abs=1e-4)
    assert compare.difference([1.0], [0.0])["low"] is None
    with pytest.raises(ValueError, match="as many runs"):
        compare.difference([1.0, 2.0], [1.0])


def test_fine_tuning_takes_the_median():
    assert scores.aggregate_runs([1.0, 2.0, 9.0], finetune.PROTOCOL) == 2.0
    assert scores.aggregate_runs([1.0, 2.0, 9.0], "knn") == 4.0


def test_modules_are_paired_in_order(tmp_path):
    specs = {}
    for name, base in (("a", 0.5), ("b", 0.3)):
        folders = [
            write(
                tmp_path / f"{name}{place}",
                [
                    row("m", task, seed, base + 0.01 * place * (name == "a"))
                    for task in ("x", "y")
                    for seed in (0, 1)
                ],
            )
            for place in range(3)
        ]
        specs[name] = f"{name}={','.join(folders)}"
    pixels = write(
        tmp_path / "raw",
        [row("pixels", t, s, 0.2) for t in "xy" for s in (0, 1)],
    )
    found = compare.load([specs["a"], specs["b"], pixels])
    a, b, raw = found.columns
    assert len(a.cell("x", "knn")) == 6 and len(a.units("x", "knn")) == 3
    apart = compare.mean_difference(a, b, ["x", "y"], "knn")
    assert apart["runs"] == 3 and apart["tasks"] == 2
    assert apart["mean"] == pytest.approx(21.0)
    half = 4.3027 * 1.0 / 3**0.5
    assert apart["high"] == pytest.approx(21.0 + half, abs=1e-3)
    apart = compare.mean_difference(a, raw, ["x", "y"], "knn")
    assert apart["mean"] == pytest.approx(31.0) and apart["runs"] == 3


def test_one_encoder_in_several_folders(tmp_path):
    """Its tasks come together; other settings make another column."""
    first = write(tmp_path / "a", [row("m", "x", 0, 0.5)], digest="d")
    second = write(
        tmp_path / "b",
        [row("m", "x", 0, 0.6), row("m", "y", 0, 0.1)],
        digest="d",
    )
    small = write(
        tmp_path / "c", [row("m", "x", 0, 0.7)], {"image_size": 32}, digest="d"
    )
    found = compare.load([first, second, small, small])
    assert [c.name for c in found.columns] == ["m", "m (c)"]
    one, other = found.columns
    assert one.cell("x", "knn") == [50.0] and one.cell("y", "knn") == [10.0]
    assert other.cell("x", "knn") == [70.0]
    assert one.folders == [[first, second]]
    assert any("image_size 32" in line for line in found.left_out)
    with pytest.raises(ValueError, match="'n' must be scored alike"):
        compare.load([f"n={first},{small}"])


def test_other_images_are_left_out(tmp_path):
    first = write(
        tmp_path / "a", [row("m", "x", 0, 0.5), row("m", "y", 0, 0.1)]
    )
    second = write(tmp_path / "b", [row("n", "x", 0, 0.5)], None, "other")
    found = compare.load([first, second])
    assert list(found.tasks) == ["y"] and "differ" in found.left_out[0]
    third = write(tmp_path / "c", [row("n", "x", 0, 0.5)], {"suite": "vtab"})
    with pytest.raises(ValueError, match="one suite"):
        compare.load([first, third])
    with pytest.raises(FileNotFoundError, match=r"results\.json"):
        compare.load([str(tmp_path)])


def vtab_results(folder, sweep, tasks=tuple(vtab_tasks.SOURCES), **others):
    """Results of the published protocol, or of another sweep."""
    settings = {
        "suite": "vtab",
        "image_size": 224,
        "max_test": None,
        "sweep": json.loads(json.dumps(vars(sweep))),
        **others,
    }
    rows = [
        row("m", name, run, 0.5, "finetune", vtab_tasks.SOURCES[name].group)
        for name in tasks
        for run in range(3)
    ]
    return write(folder, rows, settings)


def test_published_rows_stand_beside_the_same_protocol_alone(tmp_path):
    same = compare.load([vtab_results(tmp_path / "same", finetune.VTAB)])
    assert compare.published_rows(same) == scores.VTAB_1K
    other = compare.load([vtab_results(tmp_path / "other", finetune.SMALL)])
    assert compare.published_rows(other) == ()
    fewer = vtab_results(tmp_path / "fewer", finetune.VTAB, ["dtd", "svhn"])
    assert compare.published_rows(compare.load([fewer])) == ()
    text = scores.table(compare.load([fewer]).columns[0].runs[0], "vtab")
    assert "VTAB-1k mean (withheld: tasks are missing)" in text
    files = comparison_page.compare(
        [str(tmp_path / "same")], tmp_path / "report"
    )
    assert "VIVI-Ex(4)-Co(100%)" in files[0].read_text()


def change_file(folder, change):
    found = files_lib.read_json(folder / "results.json")
    change(found)
    files_lib.write_json(folder / "results.json", found)


def other_splits(found):
    found["tasks"]["dtd"]["notes"] = ["dtd/3.0.1 has (9, 9, 9) images"]


def fixed_input(found):
    found["encoders"][0] |= {"required_size": [128, 128], "batch_size": 8}


@pytest.mark.parametrize(
    ("others", "change", "said"),
    [
        ({"image_size": 64}, lambda found: None, "images of 64x64, not 224"),
        ({"max_test": 100}, lambda found: None, "at most 100 test images"),
        ({}, other_splits, "dtd: dtd/3.0.1 has (9, 9, 9) images"),
        ({}, fixed_input, "images of 128x128, not 224 pixels; batch_size 8"),
    ],
)
def test_other_protocols_are_no_vtab_mean(tmp_path, others, change, said):
    vtab_results(tmp_path / "same", finetune.VTAB)
    vtab_results(tmp_path / "other", finetune.VTAB, **others)
    change_file(tmp_path / "other", change)
    found = compare.load([str(tmp_path / "other")])
    assert compare.published_rows(found) == ()
    text = comparison_page.compare(
        [str(tmp_path / "other")], tmp_path / "report"
    )[0].read_text()
    assert "VTAB-1k mean" not in text and "mean of 19, not VTAB-1k" in text
    assert f"m is not scored as VTAB-1k: {said}" in text
    assert "Relative Patch Location" not in text
    # Beside an encoder that is scored as published, it is said.
    both = [f"one={tmp_path / 'same'}", f"two={tmp_path / 'other'}"]
    text = comparison_page.compare(both, tmp_path / "both")[0].read_text()
    assert "| VTAB-1k mean | **50.0** | - |" in text
    assert "| mean of 19, not VTAB-1k | - | **50.0** |" in text
    assert f"two is not scored as VTAB-1k: {said}" in text
    assert "Relative Patch Location" in text
    said = "Images are resized as half_pixel here, and as legacy for the"
    assert f"{said} published scores." in text


def test_kNN_over_vtab_is_no_vtab_mean():
    rows = [row("m", name, 0, 0.5) for name in vtab_tasks.SOURCES]
    text = scores.table(rows, "vtab")
    assert "VTAB-1k mean" not in text and "mean of 19, not VTAB-1k" in text


def test_report_of_real_runs(tmp_path, monkeypatch):
    few = functools.partial(frozen.run_few_shot, shots=(1, 3), num_draws=2)
    monkeypatch.setattr(frozen, "run_few_shot", few)
    for seed in range(2):
        net = evaluation_modules.TinyEncoder(seed=seed)
        evaluation_modules.save(tmp_path / f"tiny{seed}", net)
        evaluate.evaluate(
            tmp_path / f"tiny{seed}",
            tmp_path / f"out{seed}",
            tasks=["digits"],
            protocols=["knn", "few_shot"],
            image_size=16,
            max_test=120,
            cache_dir=None,
            show=None,
        )
    files = comparison_page.compare(
        [
            f"tiny={tmp_path / 'out0'},{tmp_path / 'out1'}",
            str(tmp_path / "out0"),
        ],
        tmp_path / "report",
    )
    names = {file.name for file in files}
    assert names == {
        "compare.md",
        "compare.html",
        "label_efficiency.png",
        "bars_knn.png",
        "map_digits_pca.png",
    }
    text, page = files[0].read_text(), files[1].read_text()
    assert "| digits | " in text and "(2 runs)" in text
    assert "raw 16x16 pixels" in text and "**" in text
    assert page.count("data:image/png;base64,") == 3
    kept = maps.load(tmp_path / "out0" / "maps" / "pca" / "digits.npz")
    assert kept["thumbnails"].shape == (120, 28, 28, 3)
    assert set(maps.by_name(kept)) == {"tiny0", "raw 16x16 pixels"}


def test_a_smoothed_line_does_not_lag():
    """It keeps a straight line, and the place of a step, as they are."""
    line = np.linspace(5, 1, 41)
    smoothed = pictures.smooth(line)
    assert smoothed[20] == pytest.approx(line[20])
    np.testing.assert_allclose(smoothed[::-1], 6 - smoothed, atol=1e-12)
    step = np.repeat([4.0, 2.0], 30)
    middle = np.flatnonzero(pictures.smooth(step) < 3)[0]
    assert middle == 30
    # A slow transcription; gaps have no weight.
    values = np.random.default_rng(0).normal(size=12)
    values[[0, 5]] = np.nan
    for at, value in enumerate(pictures.smooth(values, 0.7)):
        weights = 0.7 ** np.abs(np.arange(12) - at) * np.isfinite(values)
        expected = np.nansum(weights * values) / weights.sum()
        assert value == pytest.approx(expected)
    assert np.isnan(pictures.smooth([np.nan] * 3)).all()


def test_pca_map():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(50, 6)) * [9, 4, 1, 1, 1, 1]
    found = maps.pca_map(values)
    rows = values / np.linalg.norm(values, axis=1, keepdims=True)
    lengths = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    np.testing.assert_allclose(found.var(axis=0, ddof=1), lengths[:2])
    assert maps.pca_map(np.ones((3, 1))).shape == (3, 2)


def blobs():
    """Three far groups of 40 rows of 8 numbers, and their labels."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    return np.eye(3, 8)[labels] + generator.normal(0, 0.1, (120, 8)), labels


def test_umap_keeps_neighbours_and_repeats():
    pytest.importorskip("umap")
    values, labels = blobs()
    found = maps.umap_map(values)
    distances = np.linalg.norm(found[:, None] - found, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert np.mean(labels[distances.argmin(axis=1)] == labels) == 1.0
    np.testing.assert_array_equal(maps.umap_map(values), found)
    assert not np.allclose(found, maps.pca_map(values))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_umap_of_few_or_equal_rows(count):
    pytest.importorskip("umap")
    for values in (blobs()[0][::24][:count], np.ones((count, 4))):
        found = maps.umap_map(values)
        assert found.shape == (count, 2) and np.isfinite(found).all()


def test_umap_maps_are_kept_and_drawn(tmp_path):
    pytest.importorskip("umap")
    evaluation_modules.save(tmp_path / "tiny")
    evaluate.evaluate(
        tmp_path / "tiny",
        tmp_path / "out",
        tasks=["digits"],
        protocols=["knn"],
        image_size=16,
        max_test=60,
        maps=["pca", "umap"],
        cache_dir=None,
        show=None,
    )
    files = comparison_page.compare(
        [str(tmp_path / "out")], tmp_path / "report"
    )
    names = {file.name for file in files}
    assert {"map_digits_pca.png", "map_digits_umap.png"} <= names
    assert "Test images of digits, by UMAP" in files[0].read_text()


def test_maps_that_cannot_be_made_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # as if not installed
    evaluation_modules.save(tmp_path / "tiny")
    with pytest.raises(ImportError, match=r"pip install 'vivi-keras\[maps\]'"):
        evaluate.evaluate(tmp_path / "tiny", maps=["umap"], show=None)
    with pytest.raises(ValueError, match="maps must be of .* Got: .*tsne"):
        evaluate.evaluate(tmp_path / "tiny", maps=["tsne"], show=None)


def test_damaged_results_are_named(tmp_path):
    (tmp_path / "results.json").write_text('{"rows": [')
    with pytest.raises(ValueError, match="results.json is damaged"):
        compare.load([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="with results.json. Got: "):
        compare.load([str(tmp_path / "no")])


@pytest.mark.parametrize(
    "change",
    [
        lambda found: [],
        lambda found: {},
        lambda found: {**found, "rows": [{"accuracy": 0.5}]},
        lambda found: {**found, "encoders": []},
        lambda found: {**found, "settings": {}},
    ],
)
def test_json_that_is_no_results_is_named(tmp_path, change):
    write(tmp_path, [row("a", "x", 0, 0.5)])
    file = tmp_path / "results.json"
    compare.load([str(tmp_path)])
    files_lib.write_json(file, change(files_lib.read_json(file)))
    with pytest.raises(ValueError, match="results.json must hold the results"):
        compare.load([str(tmp_path)])


def test_a_name_is_given_once(tmp_path):
    folder = write(tmp_path, [row("a", "x", 0, 0.5)])
    with pytest.raises(
        ValueError, match=r"different names. Got: \['A'\] twice"
    ):
        compare.load([f"A={folder}", f"A={folder}"])
