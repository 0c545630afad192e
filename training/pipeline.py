"""Whole pipelines: from videos to scores, and adaptation with a verdict."""

import dataclasses
import os
import pathlib
import time

from vivi_keras import files

HELD_OUT_FILMS_SEED = 22
NUM_HELD_OUT_FILMS = 120
ADAPTATION_STEPS = 60
TASKS = ("demo", "digits", "fashion_mnist")
LEVELS = ("frame", "shot", "frame+shot", "vivi")


def run_path(videos, folder, settings, **preparation):
    """Prepares videos, trains an encoder on them, exports and evaluates it.

    Args:
        videos: folder of video files.
        folder: folder for all output.
        settings: {"seed": int, "steps": int or None}.
        preparation: further arguments of `prepare.prepare`.
    Returns: the results of the evaluation.
    """
    from vivi_keras import prepare
    from vivi_keras.demo import corpus
    from vivi_keras.evaluation import evaluate
    from vivi_keras.evaluation.reports import pictures
    from vivi_keras.export import export_encoder
    from vivi_keras.runs import build
    from vivi_keras.runs import run as run_lib
    from vivi_keras.training import configs

    clock, dataset = Clock(), folder / "dataset"
    prepare.prepare(
        videos,
        dataset,
        short_side=96,
        # One record per film, so that a batch's rows are different films.
        shots_per_record=16,
        workers=os.cpu_count(),
        show_progress=True,
        **preparation,
    )
    clock.lap("prepared")
    config = configs.get_config("vivi_ex4_demo")
    config.seed = settings["seed"]
    config.data.dataset = str(dataset)
    if settings["steps"] is not None:
        config.train.steps = settings["steps"]
    run = folder / f"seed{config.seed}"
    workdir = run / "workdir"
    run_lib.pretrain(config, workdir)
    clock.lap("pretrained")
    encoder, metadata = build.restore_encoder(workdir)
    export_encoder(encoder, run / "module", metadata=metadata)
    untrained = build.untrained_encoder(config, ADAPTATION_STEPS)
    export_encoder(
        untrained,
        run / "untrained",
        metadata={**metadata, "row": "untrained", "steps": 0},
    )
    clock.lap("exported")
    held_out = folder.parent / "held_out_films"
    corpus.render_corpus(
        held_out,
        num_films=NUM_HELD_OUT_FILMS,
        seed=HELD_OUT_FILMS_SEED,
        processes=os.cpu_count(),
    )
    results = evaluate.evaluate(
        run / "module",
        run / "evaluation",
        tasks=TASKS,
        name="pretrained",
        baselines={"untrained": run / "untrained"},
        image_size=config.data.image_size,
        demo_films=held_out,
        cache_dir=folder / "cache",
    )
    pictures.draw_all(
        run / "evaluation",
        module=run / "module",
        workdir=workdir,
        dataset=dataset,
        image_size=config.data.image_size,
    )
    clock.lap("evaluated")
    print(
        f"The encoder: {run / 'module'}\n"
        f"Table and pictures: {run / 'evaluation'}\n"
        f"Shots found: {dataset / 'report.html'}\n"
        f"Seconds: {clock}"
    )
    return results


class Clock:
    """Measures the seconds of each step of a run."""

    def __init__(self):
        self.laps, self.then = {}, time.monotonic()

    def lap(self, name):
        now = time.monotonic()
        self.laps[name] = now - self.then
        self.then = now

    def __str__(self):
        return ", ".join(f"{n} {s:.0f}" for n, s in self.laps.items())


@dataclasses.dataclass(frozen=True)
class Adapted:
    """What `adapt` returns.

    Attributes:
        encoder: keras.Model, the best one by the probe: images [N, H, W, 3] in
            [0, 1] -> features [N, D].
        module: folder of the same encoder as a SavedModel.
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
    show=print,
) -> Adapted:
    """Adapts an encoder to videos by self-supervision, if that helps.

    Half of the labels makes the choices: short runs compare levels and rates,
    if there are several, and the probe selects the best step of the whole run,
    where the start counts as a step. The other half judges the result.

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
        probe_every_steps: int; None for a tenth of the steps.
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
            " KERAS_BACKEND=tensorflow, or train alone with vivi-pretrain."
        )
    from vivi_keras.runs import build
    from vivi_keras.runs import run as run_lib
    from vivi_keras.training import configs

    unknown = {*levels} - {*LEVELS}
    if unknown or not levels or not rates:
        raise ValueError(
            f"levels must be of {', '.join(LEVELS)} and rates be numbers, at"
            f" least one of each. Got: {levels} and {rates}"
        )
    workdir = pathlib.Path(workdir)

    def config_of(level, rate):
        config = configs.get_config(f"adapt_{level.replace('+', '_')}{scale}")
        config.data.dataset = str(dataset)
        config.model.encoder = encoder
        config.schedule.learning_rate = rate
        config.update_from_flattened_dict(settings or {})
        if steps is not None:
            configs.set_adapt_steps(config, steps)
        return config

    def train(config, folder):
        every = probe_every_steps
        if every is None:
            every = max(1, config.train.steps // 10)
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
    trials = []
    if len(choices) > 1:
        trials = _try(choices, workdir / "trials", trial_steps, train)
        if show is not None:
            show(_trial_table(trials))
        files.write_json(workdir / "trials.json", trials, sort_keys=False)
    chosen = trials[0]["name"] if trials else next(iter(choices))
    train(choices[chosen], workdir / "run")
    result = judge_run(workdir / "run", labels, fine_tune=fine_tune, show=show)
    model, _ = build.restore_encoder(workdir / "run")
    return Adapted(model, workdir / "run/verdict/adapted", result, trials)


def _try(choices, folder, trial_steps, train):
    """Short runs of all choices, sorted by the probe's score, best first."""
    from vivi_keras.runs import batches, best
    from vivi_keras.training import configs

    images = {name: batches.images_per_step(c) for name, c in choices.items()}
    if len({*images.values()}) > 1:
        raise ValueError(
            f"levels must see the same number of images per step. Got: {images}"
        )
    found = []
    for name, config in choices.items():
        config = config.copy_and_resolve_references()
        steps = trial_steps or max(1, config.train.steps // 5)
        configs.set_adapt_steps(config, steps)
        place = folder / name.replace(", ", "-")
        train(config, place)
        record, _ = best.read(place)
        found.append(
            {"name": name, "score": record["score"], "step": record["step"]}
        )
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


def judge_run(workdir, labels, **options) -> dict:
    """The verdict on a run that saved its best step.

    Args:
        workdir: folder of the run; "verdict" in it gets the modules `start` and
            `adapted`, summary.json and report.html.
        labels: those of the run's probe.
        **options: further arguments of `evaluation.verdict.judge`.
    Returns: see `evaluation.verdict.judge`.
    Raises: FileNotFoundError: the run or its start is gone, or it saved no
        best step. ValueError: see `evaluation.verdict.judge`.
    """
    from vivi_keras.evaluation import verdict
    from vivi_keras.export import export_encoder
    from vivi_keras.runs import build
    from vivi_keras.runs import workdir as workdir_lib

    output = pathlib.Path(workdir) / "verdict"
    config = workdir_lib.read_config(workdir)
    adapted, metadata = build.restore_model(workdir, step="best")
    export_encoder(adapted.encoder, output / "adapted", metadata=metadata)
    start = build.build_encoder(config)
    start.trainable = True
    shared = {k: v for k, v in metadata.items() if k != "chosen_by"}
    export_encoder(start, output / "start", metadata={**shared, "steps": 0})
    return verdict.judge(
        output / "start",
        output / "adapted",
        labels,
        config.data.dataset,
        output,
        best_step=metadata["steps"],
        image_size=config.data.image_size,
        **options,
    )
