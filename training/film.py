"""`vivi run` on a real film without labels, Big Buck Bunny (`make film`).

The film (Blender Foundation, CC-BY 3.0) is part of the source package of
moviepy 2.2.1. Negatives come from other videos, so the film is cut, without
decoding, into consecutive pieces that serve as videos.

Example:
  python -m vivi_keras.training.film --output=film
"""

import pathlib

from absl import app, flags

from vivi_keras import commands
from vivi_keras.demo.big_buck_bunny import (
    MEMBER,
    PIECE_SECONDS,
    cut_film,
    fetch_film,
)
from vivi_keras.training import demo

for _flag in (demo.OUTPUT, demo.SEED, demo.STEPS):
    flags.declare_key_flag(_flag.name)
flags.FLAGS.set_default("output", ".cache/film")
_FILM = flags.DEFINE_string(
    "film", None, "A film of your own in place of Big Buck Bunny."
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    folder = pathlib.Path(demo.OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    film = _FILM.value
    if film is None:
        film = fetch_film(folder / MEMBER)
    if not pathlib.Path(film).is_file():
        raise FileNotFoundError(f"--film must be a video file. Got: {film!r}")
    pieces = cut_film(film, folder / "pieces", PIECE_SECONDS)
    if len(pieces) < 2:
        raise ValueError(
            f"--film must be longer than {PIECE_SECONDS:.0f} s, as negatives"
            f" come from other pieces. Got: {len(pieces)} piece of {film}"
        )
    print(f"{film}: {len(pieces)} pieces of about {PIECE_SECONDS:.0f} s")
    demo.run_short(folder / "pieces", None, folder)


def run():
    """Runs from the command line."""
    commands.run("python -m vivi_keras.training.film", main)


if __name__ == "__main__":
    run()
