"""The whole pipeline on rendered films: videos, data set, encoder, scores.

`make demo` runs it. Finished steps are not repeated.

Example:
  python -m vivi_keras.training.demo --output=demo
"""

import os
import pathlib
import time

from absl import app, flags

from vivi_keras import commands

OUTPUT = flags.DEFINE_string("output", ".cache/demo", "Folder of the run.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the training.")
STEPS = flags.DEFINE_integer("steps", None, "Training steps.", 1)
_NUM_FILMS = flags.DEFINE_integer("num_films", 160, "Films to train on.", 2)

# Corpora with different seeds have no objects in common.
TRAINING_FILMS_SEED = 21
HELD_OUT_FILMS_SEED = 22
NUM_HELD_OUT_FILMS = 120
ADAPTATION_STEPS = 60
TASKS = ("demo", "digits", "fashion_mnist")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    from vivi_keras.demo import corpus

    folder = pathlib.Path(OUTPUT.value)
    films = folder / "films"
    corpus.render_corpus(
        films,
        num_films=_NUM_FILMS.value,
        seed=TRAINING_FILMS_SEED,
        # One object per film, so that later shots show it again.
        objects_per_film=1,
        dissolve_share=0.15,
        processes=os.cpu_count(),
    )
    run_path(
        films,
        folder,
        {"seed": SEED.value, "steps": STEPS.value},
        frames_per_second=4.0,
    )


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


def run():
    """Runs from the command line."""
    commands.run("python -m vivi_keras.training.demo", main)


if __name__ == "__main__":
    run()
