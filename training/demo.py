"""`vivi run` on a small archive with labels, which it records first.

`make demo` runs it. The videos are walks through maps of the game Freedoom
(`vivi_keras.demo.freedoom`), and the labels say which map each video shows.
Finished steps are not repeated.

Example:
  python -m vivi_keras.training.demo --output=demo
"""

import os
import pathlib
import time

from absl import app, flags

from vivi_keras import commands

OUTPUT = flags.DEFINE_string("output", ".cache/demo", "Folder of the run.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of videos and training.", 0)
STEPS = flags.DEFINE_integer("steps", 50, "Training steps.", 1)
_MAPS = flags.DEFINE_integer("maps", 6, "Maps to tell apart.", 2)
_WALKS = flags.DEFINE_integer("walks", 8, "Videos of each map.", 4)

# Chosen with videos of other maps.  [O]
LEVEL, IMAGE_SIZE = "vivi", 48


def main(argv):
    """Records the videos that are missing and runs `vivi_keras.run` on them."""
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    from vivi_keras.demo import freedoom

    start = time.monotonic()
    folder = pathlib.Path(OUTPUT.value)
    videos, labels = freedoom.make_places(
        folder / "places",
        num_maps=_MAPS.value,
        num_walks=_WALKS.value,
        seed=SEED.value,
        workers=os.cpu_count(),
    )
    run_short(videos, labels, folder)
    print(f"It took {time.monotonic() - start:.0f} s.")


def run_short(videos, labels, folder):
    """`vivi_keras.run` of a few minutes on two cores."""
    from vivi_keras.training import pipeline

    found = pipeline.run(
        videos,
        labels,
        output=folder,
        steps=STEPS.value,
        levels=(LEVEL,),
        settings={"data.image_size": IMAGE_SIZE, "seed": SEED.value},
        fine_tune=False,
    )
    print(f"The encoder: {found['module']}\nOpen {found['page']}")


def run():
    """Runs from the command line."""
    commands.run("python -m vivi_keras.training.demo", main)


if __name__ == "__main__":
    run()
