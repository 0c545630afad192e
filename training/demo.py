"""The whole path on rendered films: videos -> data set -> encoder -> scores.

`make demo` runs it. Steps that are done are not done again.

Example:
  python -m vivi_keras.training.demo --output=demo
"""

import os
import pathlib
import time

from absl import app, flags

from vivi_keras.training import commands

_OUTPUT = flags.DEFINE_string("output", ".cache/demo", "Folder of the run.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the training.")
_STEPS = flags.DEFINE_integer("steps", None, "Training steps.", 1)
_NUM_FILMS = flags.DEFINE_integer("num_films", 160, "Films trained on.", 2)

# Corpora of different seeds share no object.
TRAINING_FILMS_SEED, HELD_OUT_FILMS_SEED = 21, 22
NUM_HELD_OUT_FILMS = 120
ADAPTATION_STEPS = 60
TASKS = ("demo", "digits", "fashion_mnist")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Expected only flags; got {argv[1:]}.")
    from vivi_keras.video import demo_corpus

    folder = pathlib.Path(_OUTPUT.value)
    films = folder / "films"
    demo_corpus.render_corpus(
        films,
        num_films=_NUM_FILMS.value,
        seed=TRAINING_FILMS_SEED,
        # One object a film: what returns in later shots is what is shown.
        objects_per_film=1,
        dissolve_share=0.15,
        processes=os.cpu_count(),
    )
    run_path(
        films,
        folder,
        {"seed": _SEED.value, "steps": _STEPS.value},
        frames_per_second=4.0,
    )


def run_path(videos, folder, settings, **preparation):
    """Prepares videos, pretrains on them, exports and evaluates the encoder.

    Args:
        videos: folder of video files.
        folder: where everything goes.
        settings: {"seed": int, "steps": int or None}.
        preparation: further arguments of `video.prepare`.
    Returns: the results of the evaluation.
    """
    from vivi_keras import video
    from vivi_keras.evaluation import pictures, suite
    from vivi_keras.export import export_encoder
    from vivi_keras.training import build, configs, pretrain
    from vivi_keras.video import demo_corpus

    clock, dataset = Clock(), folder / "dataset"
    video.prepare(
        videos,
        dataset,
        short_side=96,
        # A record a film, so that the rows of a batch are different films.
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
    pretrain.pretrain(config, workdir)
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
    demo_corpus.render_corpus(
        held_out,
        num_films=NUM_HELD_OUT_FILMS,
        seed=HELD_OUT_FILMS_SEED,
        processes=os.cpu_count(),
    )
    results = suite.evaluate(
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
    """Seconds that the steps of a run took."""

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
    commands.run("vivi_keras.training.demo", main)


if __name__ == "__main__":
    run()
