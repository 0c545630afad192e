"""An encoder trained from scratch on films, and tasks unlike the films.

    python benchmarks/studies/small_tasks.py --films=rendered --output=DIR
    python benchmarks/studies/small_tasks.py --films=bunny --output=DIR

Films are prepared, an encoder is pretrained on them (row vivi_ex4_demo),
exported, and evaluated beside its untrained start and simple baselines. The
films are 160 rendered ones, or pieces of Big Buck Bunny. Finished steps are
not repeated, and other seeds use the same data set.
"""

import os
import pathlib
import time

from absl import app, flags

from vivi_keras import commands

_FILMS = flags.DEFINE_enum(
    *("films", "rendered", ["rendered", "bunny"], "What to train on.")
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the run.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the training.")
_STEPS = flags.DEFINE_integer("steps", None, "Training steps.", 1)

# Corpora with different seeds have no objects in common.
TRAINING_FILMS, TRAINING_FILMS_SEED = 160, 21
HELD_OUT_FILMS, HELD_OUT_FILMS_SEED = 120, 22
ADAPTATION_STEPS = 60
TASKS = ("demo", "digits", "fashion_mnist")


def videos(folder):
    """The folder with the films to train on; they are made if absent."""
    from vivi_keras.demo import big_buck_bunny, corpus

    if _FILMS.value == "bunny":
        film = big_buck_bunny.fetch_film(folder / big_buck_bunny.MEMBER)
        big_buck_bunny.cut_film(
            film, folder / "pieces", big_buck_bunny.PIECE_SECONDS
        )
        return folder / "pieces"
    corpus.render_corpus(
        folder / "films",
        num_films=TRAINING_FILMS,
        seed=TRAINING_FILMS_SEED,
        # One object per film, so that later shots show it again.
        objects_per_film=1,
        dissolve_share=0.15,
        processes=os.cpu_count(),
    )
    return folder / "films"


def pretrain(folder, run):
    """Prepares the videos and trains; returns the config."""
    from vivi_keras import prepare
    from vivi_keras.runs import run as run_lib
    from vivi_keras.training import configs

    prepare.prepare(
        videos(folder),
        folder / "dataset",
        frames_per_second=4.0,
        short_side=96,
        # One record per film, so that a batch's rows are different films.
        shots_per_record=16,
        workers=os.cpu_count(),
        show_progress=True,
    )
    config = configs.get_config("vivi_ex4_demo")
    config.seed = _SEED.value
    config.data.dataset = str(folder / "dataset")
    if _STEPS.value is not None:
        config.train.steps = _STEPS.value
    run_lib.pretrain(config, run / "workdir")
    return config


def export(config, run):
    """Exports the encoder and its untrained start."""
    from vivi_keras.export import export_encoder
    from vivi_keras.runs import build

    encoder, metadata = build.restore_encoder(run / "workdir")
    export_encoder(encoder, run / "module", metadata=metadata)
    untrained = build.untrained_encoder(config, ADAPTATION_STEPS)
    export_encoder(
        untrained,
        run / "untrained",
        metadata={**metadata, "row": "untrained", "steps": 0},
    )


def evaluate(config, folder, run):
    """Writes the table and the pictures."""
    from vivi_keras.demo import corpus
    from vivi_keras.evaluation import evaluate
    from vivi_keras.evaluation.reports import pictures

    held_out = folder / "held_out_films"
    corpus.render_corpus(
        held_out,
        num_films=HELD_OUT_FILMS,
        seed=HELD_OUT_FILMS_SEED,
        processes=os.cpu_count(),
    )
    evaluate.evaluate(
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
        workdir=run / "workdir",
        dataset=folder / "dataset",
        image_size=config.data.image_size,
    )


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    if not _OUTPUT.value:
        raise app.UsageError("--output must be given.")
    start = time.monotonic()
    folder = pathlib.Path(_OUTPUT.value)
    run = folder / f"seed{_SEED.value}"
    config = pretrain(folder, run)
    export(config, run)
    evaluate(config, folder, run)
    seconds = time.monotonic() - start
    print(f"Table and pictures: {run / 'evaluation'}; {seconds:.0f} s")


if __name__ == "__main__":
    commands.run("python benchmarks/studies/small_tasks.py", main)
