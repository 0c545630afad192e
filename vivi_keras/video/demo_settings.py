"""Settings of the demo corpus and what makes them sound."""

from dataclasses import dataclass

from vivi_keras.video.demo_shapes import CATEGORIES


@dataclass(frozen=True)
class FilmSettings:
    """What `render_corpus` was asked for; see there for each field."""

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
            f"categories: expected names among {CATEGORIES}, got {unknown}."
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
            raise ValueError(f"{name}: expected {expected}, got {value!r}.")
