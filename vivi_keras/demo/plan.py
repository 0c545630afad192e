"""Plans a demo film: its settings, shots and objects."""

from dataclasses import dataclass

import numpy as np

from vivi_keras.demo.categories import CATEGORIES


@dataclass(frozen=True)
class FilmSettings:
    """Settings of a corpus; see `render_corpus` for each field."""

    seed: int
    height: int
    width: int
    frames_per_second: int
    num_shots: tuple[int, int]
    shot_seconds: tuple[float, float]
    objects_per_film: int
    objects_per_shot: tuple[int, int]
    categories: tuple[str, ...]
    categories_per_film: int
    returning: bool
    repaint: bool
    dissolve_share: float


def check_settings(settings, num_films, processes):
    """Raises ValueError naming the first setting that cannot be met."""
    unknown = sorted(set(settings.categories) - set(CATEGORIES))
    if unknown:
        raise ValueError(
            f"categories must be of {', '.join(CATEGORIES)}. Got: {unknown}"
        )
    shots, crowd = settings.num_shots, settings.objects_per_shot
    seconds = settings.shot_seconds
    top = settings.objects_per_film if settings.returning else crowd[1]
    rules = [
        ("num_films", num_films, ">= 1", num_films >= 1),
        ("processes", processes, ">= 1", processes >= 1),
        ("seed", settings.seed, ">= 0", settings.seed >= 0),
        ("num_shots", shots, "1 <= low <= high", 1 <= shots[0] <= shots[1]),
        (
            "shot_seconds",
            seconds,
            "0 < low <= high",
            0 < seconds[0] <= seconds[1],
        ),
        (
            "frames_per_second",
            settings.frames_per_second,
            ">= 1",
            settings.frames_per_second >= 1,
        ),
        (
            "objects_per_film",
            settings.objects_per_film,
            "1 to 1000",
            1 <= settings.objects_per_film <= 1000,
        ),
        (
            "objects_per_shot",
            crowd,
            f"1 <= low <= high <= {top} (and at most 8)",
            1 <= crowd[0] <= crowd[1] <= min(top, 8),
        ),
        (
            "categories_per_film",
            settings.categories_per_film,
            f"1 to {len(settings.categories)}, the number of categories",
            1 <= settings.categories_per_film <= len(settings.categories),
        ),
        (
            "categories",
            settings.categories,
            "names without repeats",
            len(set(settings.categories)) == len(settings.categories),
        ),
        (
            "dissolve_share",
            settings.dissolve_share,
            "0 to 1",
            0 <= settings.dissolve_share <= 1,
        ),
    ]
    for name in ("height", "width"):
        side = getattr(settings, name)
        good = side >= 32 and side % 2 == 0
        rules.append((name, side, "an even number >= 32", good))
    for name, value, expected, good in rules:
        if not good:
            raise ValueError(f"{name} must be {expected}. Got: {value!r}")


_CAST_STREAM, _CUT_STREAM = 21, 22
# A film may use this many object ids, so that no two films share one.
_OBJECTS_PER_FILM = 4096


@dataclass(frozen=True)
class ShotPlan:
    """One shot: its frames and its objects.

    Attributes:
        start, stop: frames [start, stop) that belong to this shot; the shots
            of a film leave no gap.
        fade_start, fade_stop: frames [fade_start, fade_stop) of the dissolve
            into this shot; equal if it begins with a cut.
        render_stop: first frame in which this shot is no longer visible.
        object_ids: the objects in drawing order.
    """

    start: int
    stop: int
    fade_start: int
    fade_stop: int
    render_stop: int
    object_ids: tuple[int, ...]


def film_categories(settings: FilmSettings, film: int) -> list[int]:
    """The categories of a film; over a corpus all are about equally frequent.

    Films take their categories in turn from a shuffled list of all categories;
    when it is used up, from a list shuffled anew.

    Returns: `categories_per_film` different indices into `CATEGORIES`.
    """
    allowed = [CATEGORIES.index(name) for name in settings.categories]
    share = settings.categories_per_film
    block, turn = divmod(film, len(allowed) // share)
    rng = np.random.default_rng([_CAST_STREAM, settings.seed, block])
    order = rng.permutation(allowed)
    return [int(c) for c in order[turn * share : (turn + 1) * share]]


def _cast(settings, film, num_shots):
    """Object ids for each shot of a film: list of tuples."""
    rng = np.random.default_rng([_CAST_STREAM, settings.seed, film, 1])
    low, high = settings.objects_per_shot
    sizes = rng.integers(low, high + 1, num_shots)
    first, width = film * _OBJECTS_PER_FILM, len(CATEGORIES)

    def new_object(place, categories):
        category = categories[place % len(categories)]
        return (first + place) * width + category

    if not settings.returning:
        casts, place = [], 0
        allowed = [CATEGORIES.index(name) for name in settings.categories]
        for size in sizes:
            kinds = rng.permutation(allowed)[: settings.categories_per_film]
            ids = [new_object(place + i, kinds) for i in range(size)]
            casts.append(tuple(int(i) for i in ids))
            place += int(size)
        return casts
    kinds = film_categories(settings, film)
    company = [new_object(i, kinds) for i in range(settings.objects_per_film)]
    shown = np.zeros(len(company))
    casts = []
    for size in sizes:  # the objects shown least often so far come next
        turn = np.argsort(shown + 0.5 * rng.random(len(company)))[:size]
        shown[turn] += 1
        casts.append(tuple(company[i] for i in rng.permutation(turn)))
    return casts


def plan_film(settings: FilmSettings, film: int) -> list[ShotPlan]:
    """Plans the shots of a film: a pure function of (settings, film)."""
    rng = np.random.default_rng([_CUT_STREAM, settings.seed, film])
    low, high = settings.num_shots
    count = int(rng.integers(low, high + 1))
    seconds = rng.uniform(*settings.shot_seconds, count)
    lengths = np.round(seconds * settings.frames_per_second).astype(int)
    bounds = np.concatenate([[0], np.cumsum(np.maximum(lengths, 6))])
    fades, lengths = [0], np.diff(bounds)
    for index in range(1, count):
        wanted = rng.random() < settings.dissolve_share
        # A third of the shorter shot, so that two dissolves never overlap.
        longest = max(2, int(lengths[index - 1 : index + 1].min()) // 3)
        shortest = min(longest, max(2, settings.frames_per_second // 3))
        fades.append(int(rng.integers(shortest, longest + 1)) * wanted)
    starts = [int(bounds[i]) - fades[i] // 2 for i in range(count)]
    stops = [starts[i] + fades[i] for i in range(count)]
    casts = _cast(settings, film, count)
    return [
        ShotPlan(
            start=int(bounds[i]),
            stop=int(bounds[i + 1]),
            fade_start=starts[i],
            fade_stop=stops[i],
            render_stop=stops[i + 1] if i + 1 < count else int(bounds[-1]),
            object_ids=casts[i],
        )
        for i in range(count)
    ]
