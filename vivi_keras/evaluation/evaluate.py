"""Scores an encoder on the tasks of a suite."""

import dataclasses
import pathlib

from vivi_keras import commands, files
from vivi_keras.evaluation import budget
from vivi_keras.evaluation.protocols import finetune, natural_video, robustness
from vivi_keras.evaluation.reports import maps
from vivi_keras.evaluation.run import PROTOCOLS, Run
from vivi_keras.evaluation.tasks import (
    offline_tasks,
    offline_tfds,
    vtab_tasks,
    vtab_tfds,
)
from vivi_keras.evaluation.tasks.packages import Unavailable
from vivi_keras.features.cache import FeatureCache, RawPixels
from vivi_keras.features.encoder import load_encoder

OFFLINE, VTAB = "offline", "vtab"
DEFAULT_PROTOCOLS = {OFFLINE: ("knn", "linear"), VTAB: (finetune.PROTOCOL,)}
IMAGE_SIZES = {OFFLINE: 64, VTAB: 224}  # pixels per side; offline's is ours [O]
MAX_TEST = {OFFLINE: offline_tfds.MAX_TEST, VTAB: None}
SWEEPS = {OFFLINE: finetune.SMALL, VTAB: finetune.VTAB}
# Size of a typical VTAB test split, for time estimates.
_VTAB_TEST = 15_000


def evaluate(
    module,
    output=None,
    *,
    suite=OFFLINE,
    tasks=("digits", "fashion_mnist"),
    baselines=None,
    name=None,
    protocol_names=None,
    image_size=None,
    seeds=(0,),
    sweep=None,
    budget_minutes=None,
    raw_pixels=True,
    demo_films=None,
    cache_dir=".cache",
    data_dir=None,
    max_test=None,
    max_corrupted=1000,
    weights=None,
    output_name=None,
    map_kinds=(maps.PCA,),
    show=print,
    progress=False,
):
    """Scores an exported encoder and its baselines on a suite.

    Args:
        module: path of a reusable SavedModel (or keras.applications.NAME).
        output: folder for results.json and table.txt, or None.
        suite: "offline" or "vtab".
        tasks: task names, groups, or "all"; offline also "demo".
        baselines: dict name -> module path of encoders to compare with.
        name: the module's name in tables.
        protocol_names: from `run.PROTOCOLS`; None for the suite's default:
            kNN and linear offline, fine-tuning for VTAB.
        image_size: int, pixels per side to resize images to; None for 64
            offline and 224 for VTAB.
        seeds: ints, each draws training images; 0 keeps the stored order.
        sweep: finetune.Sweep; None for VTAB's sweep, or a short one offline.
        budget_minutes: float; overrides protocols, sweep and max_test so
            that the estimated time fits.
        raw_pixels: bool, also score raw 16 x 16 pixels as a baseline.
        demo_films: folder of rendered held-out films, for "demo".
        cache_dir: folder for downloads and features; None stores nothing.
        data_dir: TFDS's data folder, for VTAB.
        max_test: int, most test images per task; None for 5,000 offline and
            all of them for VTAB.
        max_corrupted: int, most test images for "corruptions".
        weights: for a Keras application: "imagenet", a file, or None (random).
        output_name: which output to use if the module has several.
        map_kinds: from `maps.KINDS`; saved in `output` for comparisons.
        show: callable that prints progress and the table, or None.
        progress: bool, whether to show progress bars with the time left.
    Returns: dict with "rows", "encoders", "skipped", "settings", ... as
        written to results.json.
    Raises: ValueError: an unknown suite, task or protocol, duplicate names,
        or an unreadable module; FileNotFoundError; ImportError: umap-learn
        is missing but a map needs it.
    """
    names = task_names(suite, tasks)
    wanted = DEFAULT_PROTOCOLS[suite]
    wanted = wanted if protocol_names is None else protocol_names
    _check_protocols(wanted)
    maps.check(map_kinds)
    if budget_minutes is not None:
        budget.check(budget_minutes)
    if output is not None:
        files.check_output(output)
    encoders = _load_encoders(
        module, name, baselines, raw_pixels, output_name, weights
    )
    image_size = IMAGE_SIZES[suite] if image_size is None else image_size
    max_test = MAX_TEST[suite] if max_test is None else max_test
    sweep = SWEEPS[suite] if sweep is None else sweep
    show = show if show is not None else lambda line: None
    chosen = None
    if budget_minutes is not None:
        speeds = [budget.measure(encoder, image_size) for encoder in encoders]
        usual = _VTAB_TEST if max_test is None else max_test
        rung, chosen = budget.choose(
            budget_minutes, speeds, len(names), usual, max_test
        )
        show(chosen)
        wanted, max_test = rung.protocols, rung.max_test
        sweep = sweep if rung.sweep is None else rung.sweep
    settings = {
        "suite": suite,
        "protocols": list(wanted),
        "image_size": image_size,
        "seeds": list(seeds),
        "max_test": max_test,
        "max_corrupted": max_corrupted,
        "sweep": dataclasses.asdict(sweep),
    }
    folder = None if cache_dir is None else pathlib.Path(cache_dir)
    cache = FeatureCache(None if folder is None else folder / "features")
    run = Run(encoders, cache, settings, output, show, progress)
    load_folder = folder if folder is not None else pathlib.Path(".cache")
    for task_name in names:
        try:
            if suite == VTAB:
                task = vtab_tfds.load_task(task_name, data_dir, max_test)
            else:
                task = offline_tfds.load_task(
                    task_name, load_folder / "offline", max_test, demo_films
                )
        except Unavailable as reason:
            run.skip(task_name, str(reason))
            continue
        run.task(task)
        for kind in map_kinds if output is not None else ():
            maps.save(run, task, output, kind)
    return run.finish({"budget": chosen})


def task_names(suite, wanted):
    """Task names of a suite, from "all", groups or names."""
    if suite == OFFLINE:
        return offline_tasks.names(wanted)
    if suite != VTAB:
        raise ValueError(
            f"Expected a suite of {[OFFLINE, VTAB]}; got {suite!r}."
        )
    return offline_tasks.names(wanted, vtab_tasks.SOURCES)


def _load_encoders(module, name, baselines, raw_pixels, output_name, weights):
    """The module, its baselines and raw pixels, each with its own name."""
    encoders = [load_encoder(module, name, output=output_name, weights=weights)]
    for key, path in ({} if baselines is None else baselines).items():
        encoders.append(load_encoder(path, key))
    if raw_pixels:
        encoders.append(RawPixels())
    check_names(encoders)
    return encoders


def check_names(encoders):
    """Raises ValueError if encoder names are not unique."""
    names = [encoder.name for encoder in encoders]
    if len(set(names)) != len(names):
        raise ValueError(
            f"Expected a name of its own for each encoder; got {names}."
            " Name them (--name, --baseline_name)."
        )


def _check_protocols(names):
    unknown = [name for name in names if name not in PROTOCOLS]
    if unknown or not names or len({*names}) != len(names):
        raise ValueError(
            f"Expected protocols of {PROTOCOLS}, each once; got {names}."
        )


IMAGENET_C, VIDEO = "imagenet_c", "video"
VIDEO_ROBUST, YTBB = "vid_robust", "ytbb_robust"
SUITES = (IMAGENET_C, VIDEO_ROBUST, YTBB, VIDEO)
_SIZES = {VIDEO: 64}  # pixels per side; other suites use 224


def evaluate_robust(
    module,
    output=None,
    *,
    suite_name,
    data_dir,
    train_dir=None,
    task=None,
    baselines=None,
    name=None,
    image_size=None,
    raw_pixels=True,
    cache_dir=".cache",
    weights=None,
    output_name=None,
    show=print,
    progress=False,
):
    """Scores encoders on a robustness suite.

    Args:
        suite_name: one of SUITES.
        data_dir: the benchmark's folder as published, or for "video" a data
            set written by `vivi-prepare`.
        train_dir: folder of class folders to fit a linear probe on; required
            for all suites but "video".
        task: name of an offline task whose classes "video" predicts.
        baselines, name, image_size, raw_pixels, cache_dir, weights,
            output_name, show, progress: as in `evaluate`.
    Returns: results as from `evaluate`; "accuracy" is 1 - mean error, pm-k,
        or the share of near frames matched to their own shot.
    Raises: ValueError; Unavailable: the folders have the wrong content.
    """
    if suite_name not in SUITES:
        raise ValueError(f"Expected a suite of {SUITES}; got {suite_name!r}.")
    if suite_name != VIDEO and train_dir is None:
        raise ValueError(
            f"Suite {suite_name} needs a folder of class folders to fit its"
            " probe on (--train_dir)."
        )
    if output is not None:
        files.check_output(output)
    encoders = _load_encoders(
        module, name, baselines, raw_pixels, output_name, weights
    )
    if image_size is None:
        image_size = _SIZES.get(suite_name, 224)
    show = show if show is not None else lambda line: None
    settings = {
        "suite": suite_name,
        "image_size": image_size,
        "protocols": [suite_name],
        "data": pathlib.Path(data_dir).name,
    }
    if task is not None:
        folder = pathlib.Path(".cache" if cache_dir is None else cache_dir)
        task = offline_tfds.load_task(task, folder / "offline")
    run = Run(encoders, FeatureCache(None), settings, output, show, progress)
    for encoder in commands.progress_bar(
        encoders, unit="encoder", disable=not progress
    ):
        if suite_name == VIDEO:
            result = natural_video.run(
                encoder, data_dir, image_size=image_size, task=task
            )
        else:
            probe = robustness.FolderProbe(encoder, train_dir, image_size)
            result = _published(suite_name, probe, data_dir, show)
        run.rows.append(
            {
                "encoder": encoder.name,
                "task": pathlib.Path(data_dir).name,
                "group": "robustness",
                "protocol": suite_name,
                "seed": 0,
                **result,
            }
        )
        details = {
            k: round(v, 4) for k, v in result.items() if isinstance(v, float)
        }
        show(f"{encoder.name}: {details}")
    return run.finish()


def _published(name, probe, data_dir, show):
    if name == IMAGENET_C:
        result = robustness.imagenet_c(probe.predict, data_dir, show)
        errors = [sum(e) / len(e) for e in result["errors"].values()]
        return {"accuracy": 1.0 - sum(errors) / len(errors), **result}
    result = robustness.video_robust(
        probe.predict, data_dir, neighbours_use_anchor_labels=name == YTBB
    )
    return {"accuracy": result["pm_k"], **result}
