"""The demo corpus: short rendered films with ground truth.

Objects of `CATEGORIES` move, turn and scale before textured backgrounds while
light and colour change. The same objects appear again in later shots of their
film with another background, pose, size and light: the video level of the
objective can learn from this [O].
"""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

from vivi_keras import files
from vivi_keras.demo.categories import CATEGORIES
from vivi_keras.demo.crops import labelled_crops
from vivi_keras.demo.film import write_film
from vivi_keras.demo.plan import FilmSettings, check_settings

__all__ = ["CATEGORIES", "labelled_crops", "render_corpus"]

_FORMAT = 1


def render_corpus(
    directory,
    *,
    num_films: int,
    seed: int = 0,
    height: int = 96,
    width: int = 128,
    frames_per_second: int = 12,
    num_shots: tuple[int, int] = (6, 12),
    shot_seconds: tuple[float, float] = (1.5, 3.0),
    objects_per_film: int = 2,
    objects_per_shot: tuple[int, int] | None = None,
    categories: tuple[str, ...] | None = None,
    categories_per_film: int | None = None,
    returning: bool = True,
    repaint: bool = False,
    dissolve_share: float = 0.3,
    processes: int = 1,
) -> dict:
    """Renders H.264 films, each with a JSON file of its ground truth.

    Film i is a pure function of (settings, i): the same seed gives the same
    pixels for any `num_films` and `processes`. An object's shape is a pure
    function of (seed, object id), so a corpus with another seed has other
    objects.

    Files: film_XXXX.mp4, film_XXXX.json, and corpus.json, written last. In
    film_XXXX.json all ranges are half-open and in frames; a shot's "objects"
    have one entry per frame of [start_frame, stop_frame) in "boxes" (left,
    top, right, bottom of the silhouette within the frame, or null), "visible"
    (share of the silhouette in the frame and not covered), "x", "y", "size"
    (pixels), "angle" (radians, clockwise) and "squash". "transition" is the
    transition into the shot: in frame k of a dissolve of N frames, the new
    shot's share is (k + 1) / (N + 1).

    Args:
        directory: where to write; made if absent. If it already holds the
            same corpus, nothing is rendered.
        num_films: number of films, >= 1.
        seed: >= 0.
        height, width: frame size in pixels, even, >= 32.
        frames_per_second: int, >= 1.
        num_shots: fewest and most shots of a film, both included.
        shot_seconds: shortest and longest shot.
        objects_per_film: number of objects that a film's shots share, at most
            1000. With as many objects as a film's shots show in all, and
            `categories_per_film=1`, shots share a category but no object.
        objects_per_shot: fewest and most objects in a shot, both included;
            by default 1 to 2, but at most as many as the film has.
        categories: names from `CATEGORIES` to draw from; default all. Leave
            some out of training films to test on unseen categories.
        categories_per_film: number of categories among a film's objects; by
            default as many as there are objects.
        returning: False gives each shot new objects, of categories drawn again
            at random, as if the shots came from different videos (a control).
        repaint: paint objects differently in each shot, so that only their
            shape stays the same.
        dissolve_share: share of transitions that are dissolves; the others
            are hard cuts.
        processes: number of rendering processes, each a new interpreter
            ("spawn": a script must call this under
            `if __name__ == "__main__":`).
    Returns: the content of corpus.json.
    Raises: ValueError: settings cannot be met; FileExistsError: the folder
        holds another corpus or other films.
    """
    settings = FilmSettings(
        seed=seed,
        height=height,
        width=width,
        frames_per_second=frames_per_second,
        num_shots=tuple(num_shots),
        shot_seconds=tuple(shot_seconds),
        objects_per_film=objects_per_film,
        objects_per_shot=_objects_per_shot(objects_per_shot, objects_per_film),
        categories=CATEGORIES if categories is None else tuple(categories),
        categories_per_film=_categories_per_film(
            categories_per_film, objects_per_film, categories
        ),
        returning=returning,
        repaint=repaint,
        dissolve_share=dissolve_share,
    )
    check_settings(settings, num_films, processes)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    corpus = {
        "format": _FORMAT,
        "num_films": num_films,
        "all_categories": list(CATEGORIES),
        # As JSON stores them, to compare equal to those of a stored corpus.
        "settings": json.loads(json.dumps(asdict(settings))),
    }
    stored = _stored_corpus(directory, corpus, num_films)
    if stored is not None:
        return stored
    corpus["films"] = _write_films(directory, settings, num_films, processes)
    files.write_json(directory / "corpus.json", corpus, None, sort_keys=False)
    return corpus


def _objects_per_shot(wanted, objects_per_film):
    return (1, min(2, objects_per_film)) if wanted is None else tuple(wanted)


def _categories_per_film(wanted, objects_per_film, categories):
    if wanted is not None:
        return wanted
    known = len(CATEGORIES) if categories is None else len(categories)
    return max(1, min(objects_per_film, known))


def _stored_corpus(directory, corpus, num_films):
    """The corpus already in the folder, or None if there is none."""
    path = directory / "corpus.json"
    if path.exists():
        stored = json.loads(path.read_text())
        wanted = {**corpus["settings"], "num_films": num_films}
        found = {**stored["settings"], "num_films": stored["num_films"]}
        differ = {
            key: (found.get(key), value)
            for key, value in wanted.items()
            if found.get(key) != value
        }
        if stored["format"] != _FORMAT:
            differ["format"] = (stored["format"], _FORMAT)
        if differ:
            raise FileExistsError(
                f"{directory} holds another corpus; settings as (found, "
                f"wanted): {differ}. Choose another folder."
            )
        return stored
    known = {f"film_{film:04d}.mp4" for film in range(num_films)}
    others = sorted(
        p.name for p in directory.glob("*.mp4") if p.name not in known
    )
    if others:
        raise FileExistsError(
            f"{directory} must hold no other films. Got: {others[:5]}"
        )
    return None


def _write_films(directory, settings, num_films, processes):
    if processes == 1:
        return [
            write_film(directory, settings, film) for film in range(num_films)
        ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        jobs = [
            pool.submit(write_film, directory, settings, film)
            for film in range(num_films)
        ]
        return [job.result() for job in jobs]
