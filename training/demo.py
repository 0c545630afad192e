"""The whole pipeline on rendered films: videos, data set, encoder, scores.

`make demo` runs it. Finished steps are not repeated.

Example:
  python -m vivi_keras.training.demo --output=demo
"""

import os
import pathlib

from absl import app, flags

from vivi_keras import commands
from vivi_keras.training import pipeline

OUTPUT = flags.DEFINE_string("output", ".cache/demo", "Folder of the run.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the training.")
STEPS = flags.DEFINE_integer("steps", None, "Training steps.", 1)
_NUM_FILMS = flags.DEFINE_integer("num_films", 160, "Films to train on.", 2)

# Corpora with different seeds have no objects in common.
TRAINING_FILMS_SEED = 21


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
    pipeline.run_path(
        films,
        folder,
        {"seed": SEED.value, "steps": STEPS.value},
        frames_per_second=4.0,
    )


def run():
    """Runs from the command line."""
    commands.run("python -m vivi_keras.training.demo", main)


if __name__ == "__main__":
    run()
