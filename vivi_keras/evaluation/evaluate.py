"""Scores an encoder on the tasks of a suite."""

import dataclasses
import pathlib
import warnings

from vivi_keras import commands, files
from vivi_keras.evaluation import budget
from vivi_keras.evaluation import settings as settings_lib
from vivi_keras.evaluation.protocols import finetune, natural_video, robustness
from vivi_keras.evaluation.reports import maps
from vivi_keras.evaluation.run import Run
from vivi_keras.evaluation.settings import OFFLINE, TASK_SUITES, VTAB
from vivi_keras.evaluation.tasks import (
    offline_tasks,
    offline_tfds,
    vtab_tasks,
    vtab_tfds,
)
from vivi_keras.evaluation.tasks.packages import Unavailable
from vivi_keras.features.cache import FeatureCache, RawPixels
from vivi_keras.features.encoder import load_encoder

SWEEPS = {OFFLINE: finetune.SMALL, VTAB: finetune.VTAB}
# Size of a typical VTAB test split, for time estimates.
_VTAB_TEST = 15_000


def evaluate(
    module,
    output=None,
    *,
    suite=OFFLINE,
    name=None,
    baselines=None,
    show=print,
    progress=False,
    **settings,
):
    """Scores an exported encoder and its baselines on a suite.

    Args:
        module: path of a reusable SavedModel (or keras.applications.NAME).
        output: folder for results.json and table.txt, or None.
        suite: "offline", "vtab", "imagenet_c", "vid_robust", "ytbb_robust", or
            "video", whose `data_dir` is a data set written by `vivi-prepare`.
        name: the module's name in tables.
        baselines: dict name -> module path of encoders to compare with.
        show: callable that prints progress and the table, or None.
        progress: bool, whether to show progress bars with the time left.
        **settings: fields of `settings.Settings`.
    Returns: dict with "rows", "encoders", "skipped", "settings", ... as
        written to results.json. Each row's "accuracy" is in [0, 1]. For
        imagenet_c it is 1 - mean error, for vid_robust and ytbb_robust pm-k,
        for video the share of near frames matched to their own shot.
    Raises: ValueError: an unknown suite, task or protocol, a setting without
        effect, duplicate names, or an unreadable module; FileNotFoundError;
        ImportError: umap-learn is missing but a map needs it; Unavailable: the
        folders of a robustness suite have the wrong content.
    """
    settings = settings_lib.for_suite(suite, **_renamed(settings))
    if suite in TASK_SUITES:
        task_names(suite, settings.tasks)
        maps.check(settings.maps)
    if settings.budget_minutes is not None:
        budget.check(settings.budget_minutes)
    if output is not None:
        files.check_output(output)
    encoders = _load_encoders(module, name, baselines, settings)
    show = show if show is not None else lambda line: None
    score = _score_tasks if suite in TASK_SUITES else _score_robustness
    return score(suite, encoders, settings, output, show, progress)


def _renamed(given):
    """The settings under their current names."""
    names = {"protocol_names": "protocols", "map_kinds": "maps"}
    new = {names.get(k, k): v for k, v in given.items() if k != "sweep"}
    seeds, sweep = new.get("seeds", 1), given.get("sweep")
    if not isinstance(seeds, int):
        new["seeds"] = len(seeds)
        if [*seeds] != [*range(len(seeds))]:
            raise ValueError(f"seeds must be the number of seeds. Got: {seeds}")
    if sweep is not None:
        fields = {k: getattr(sweep, k) for k in settings_lib.SWEEP}
        new |= fields
        if sweep != dataclasses.replace(finetune.VTAB, **fields):
            raise ValueError(f"sweep must have VTAB's decay. Got: {sweep}")
    if new != given:
        warnings.warn(
            "`evaluate` now takes protocols, maps, the number of seeds, and"
            f" {', '.join(settings_lib.SWEEP)}.",
            DeprecationWarning,
            stacklevel=3,
        )
    return new


def evaluate_robust(module, output=None, *, suite_name, task=None, **arguments):
    """`evaluate(module, output, suite=suite_name, tasks=[task], ...)`."""
    warnings.warn(
        "`evaluate_robust` is now `evaluate` with suite and tasks.",
        DeprecationWarning,
        stacklevel=2,
    )
    tasks = None if task is None else [task]
    return evaluate(module, output, suite=suite_name, tasks=tasks, **arguments)


def _score_tasks(suite, encoders, settings, output, show, progress):
    """Scores on the tasks of the offline suite or VTAB."""
    names = task_names(suite, settings.tasks)
    protocols, max_test = settings.protocols, settings.max_test
    sweep = dataclasses.replace(SWEEPS[suite], **settings.sweep)
    if suite == OFFLINE and settings.data_dir is not None:
        show("note: data_dir is for VTAB; the offline suite does not read it")
    chosen = None
    if settings.budget_minutes is not None:
        speeds = [budget.measure(e, settings.image_size) for e in encoders]
        usual = _VTAB_TEST if max_test is None else max_test
        rung, chosen = budget.choose(
            settings.budget_minutes, speeds, len(names), usual, max_test
        )
        show(chosen)
        protocols, max_test = rung.protocols, rung.max_test
        sweep = sweep if rung.sweep is None else rung.sweep
    recorded = {
        "suite": suite,
        "protocols": list(protocols),
        "image_size": settings.image_size,
        "seeds": list(range(settings.seeds)),
        "max_test": max_test,
        "max_corrupted": settings.max_corrupted,
        "sweep": dataclasses.asdict(sweep),
    }
    if suite == VTAB:
        recorded["resize"] = settings.resize
        show(f"images are resized as {settings.resize} (--resize)")
    folder = settings.cache_dir
    kept = None if folder is None else pathlib.Path(folder) / "features"
    run = Run(encoders, FeatureCache(kept), recorded, output, show, progress)
    for name in names:
        try:
            if suite == VTAB:
                task = vtab_tfds.load_task(
                    name, settings.data_dir, max_test, settings.resize
                )
            else:
                task = _offline_task(name, settings, max_test)
            run.score_task(task)
            for kind in settings.maps if output is not None else ():
                maps.save(run, task, output, kind)
        except Unavailable as reason:
            run.skip(name, str(reason))
    return run.finish({"budget": chosen})


def _offline_task(name, settings, max_test=offline_tfds.MAX_TEST):
    folder = ".cache" if settings.cache_dir is None else settings.cache_dir
    return offline_tfds.load_task(
        name,
        pathlib.Path(folder) / "offline",
        max_test,
        settings.demo_films,
        settings.dataset,
    )


def task_names(suite, wanted):
    """Task names of a suite, from "all", groups or names."""
    if suite == OFFLINE:
        return offline_tasks.names(wanted)
    return offline_tasks.names(wanted, vtab_tasks.SOURCES)


def _load_encoders(module, name, baselines, settings):
    """The module, its baselines and raw pixels, each with its own name."""
    encoders = [
        load_encoder(
            module,
            name,
            output=settings.output_name,
            weights=settings.weights,
        )
    ]
    for key, path in ({} if baselines is None else baselines).items():
        encoders.append(load_encoder(path, key))
    if settings.raw_pixels:
        encoders.append(RawPixels())
    check_names(encoders)
    return encoders


def check_names(encoders):
    """Raises ValueError if encoder names are not unique."""
    names = [encoder.name for encoder in encoders]
    if len(set(names)) != len(names):
        raise ValueError(
            f"Each encoder must have a name of its own. Got: {names}. Name them"
            " (--name, --baseline_name)."
        )


def _score_robustness(suite, encoders, settings, output, show, progress):
    """Scores on a robustness suite."""
    image_size, data = settings.image_size, pathlib.Path(settings.data_dir)
    recorded = {
        "suite": suite,
        "image_size": image_size,
        "protocols": [suite],
        "data": data.name,
    }
    task = (
        _offline_task(settings.tasks[0], settings) if settings.tasks else None
    )
    run = Run(encoders, FeatureCache(None), recorded, output, show, progress)
    for encoder in commands.progress_bar(
        encoders, unit="encoder", disable=not progress
    ):
        if suite == settings_lib.VIDEO:
            result = natural_video.run(
                encoder, data, image_size=image_size, task=task
            )
        else:
            probe = robustness.FolderProbe(
                encoder, settings.train_dir, image_size
            )
            result = _published(suite, probe, data, show)
        run.rows.append(
            {
                "encoder": encoder.name,
                "task": data.name,
                "group": "robustness",
                "protocol": suite,
                "seed": 0,
                **result,
            }
        )
        details = {
            k: round(v, 4) for k, v in result.items() if isinstance(v, float)
        }
        show(f"{encoder.name}: {details}")
    return run.finish()


def _published(suite, probe, data_dir, show):
    if suite == settings_lib.IMAGENET_C:
        result = robustness.imagenet_c(probe.predict, data_dir, show)
        errors = [sum(e) / len(e) for e in result["errors"].values()]
        return {"accuracy": 1.0 - sum(errors) / len(errors), **result}
    is_ytbb = suite == settings_lib.YTBB
    result = robustness.video_robust(probe.predict, data_dir, is_ytbb)
    return {"accuracy": result["pm_k"], **result}
