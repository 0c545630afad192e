"""Makes a domain of video with labels: walks through the maps of Freedoom.

For each split it writes first-person videos of 160 x 120 pixels and labels of
four tasks: the object in the middle of the picture, the depth ahead, the number
of monsters in sight, and the place (which map). The splits "train",
"validation" and "test" share no map. The split "revisits" has other walks
through the maps of "train"; the place is tested on them.

A label may hold for one frame only, so store all frames: prepare the videos
with --frames_per_second=12 --max_frames_per_shot=200.

Needs: pip install 'vivi-keras[domain]'

Example:
  python -m vivi_keras.demo.freedoom --output=freedoom --hours=2 --workers=2
"""

import collections
import functools
import itertools
import multiprocessing
import os
import pathlib
import random
import tempfile
from concurrent import futures

from absl import app, flags

from vivi_keras import checks, commands, files
from vivi_keras.data import range_labels
from vivi_keras.demo import walks

TASKS = ("object", "depth", "count", "place")
SPLITS = ("train", "validation", "test", "revisits")
NUM_MAPS = len(walks.MAPS)
NUM_SHOTS = 12  # of a walk: two minutes on average
# Walks of each map of validation and test; revisits have one of each map.
NUM_WALKS = 2
NUM_OBJECTS = 10
FIRST_REVISIT = 1000  # numbers of walks from here on are revisits
_DEPTH_EDGES = (5, 9, 14, 22, 40)  # depths go from 0 to 255
_SMALLEST_SHARE = 0.01  # of the picture, for the object in the middle
_MOST_MONSTERS = 3
_PASSING = ("Explosive", "Gibs", "SFX")  # categories that are not objects


def split_maps(num_maps=NUM_MAPS):
    """Divides maps into splits, always in the same way.

    Args:
        num_maps: int, 6 to 59, how many maps to use.
    Returns: dict of "train", "validation" and "test" -> tuple of names of
        `walks.MAPS`, disjoint; about half are for training.
    """
    checks.check_whole("num_maps", num_maps, 6, NUM_MAPS)
    order = sorted(walks.MAPS)
    random.Random(0).shuffle(order)
    train, validation = round(num_maps * 0.51), round(num_maps * 0.14)
    return {
        "train": tuple(order[:train]),
        "validation": tuple(order[train : train + validation]),
        "test": tuple(order[train + validation : num_maps]),
    }


def make_domain(
    directory,
    *,
    hours=2.0,
    num_maps=NUM_MAPS,
    seed=0,
    workers=1,
    show=print,
):
    """Records the walks of all splits and writes their labels.

    Called again, it continues; with more hours, it adds walks. Each split has
    the folders `videos` (see `walks.record_walk`) and `labels`, with a file
    TASK.csv for each task, in the form that `vivi-adapt` and `vivi-evaluate`
    read.

    Args:
        directory: where to write; made if absent.
        hours: float, approximate hours of training video. Validation and test
            have two walks (four minutes) of each map, revisits one.
        num_maps: int, 6 to 59, number of maps in "train", "validation" and
            "test" together.
        seed: int >= 0; other seeds give other walks.
        workers: int, number of processes.
        show: callable that prints a line, or None.
    Returns: dict of split -> {"videos", "seconds", and the number of labelled
        ranges of each task}.
    Raises: ImportError: vizdoom is missing. ValueError: a bad argument.
        FileExistsError: the folder holds another domain.
    """
    maps = split_maps(num_maps)
    checks.check_whole("workers", workers, 1, 1000)
    checks.check_whole("seed", seed, 0, 1 << 31)
    one_walk_hours = walks.walk_seconds(NUM_SHOTS) * len(maps["train"]) / 3600
    checks.check_range("hours", hours, one_walk_hours, 1000)
    walks.check_installed()
    directory = pathlib.Path(directory).absolute()
    _check_same(directory, {"seed": seed, "num_maps": num_maps})
    jobs = _jobs(directory, maps, round(hours / one_walk_hours))
    _record(jobs, NUM_SHOTS, seed, workers, show)
    found = {
        split: {video: walks.read_walk(video) for video in videos}
        for split, videos in jobs.items()
    }
    objects = _common_objects(found["train"])
    counts = {}
    for split, of_split in found.items():
        tasks = _write_labels(directory / split / "labels", of_split, objects)
        num_frames = sum(map(len, of_split.values()))
        counts[split] = {
            "videos": len(of_split),
            "seconds": round(num_frames / walks.FRAMES_PER_SECOND, 1),
            **tasks,
        }
    files.write_json(directory / "splits.json", counts, sort_keys=False)
    return counts


def make_places(
    directory,
    *,
    num_maps=6,
    num_walks=8,
    num_shots=6,
    seed=0,
    workers=1,
    show=print,
):
    """Records a small archive, to tell in which map each video was recorded.

    Called again, it continues.

    Args:
        directory: where to write; made if absent.
        num_maps: int, 2 to 59, number of classes.
        num_walks: int, 1 to 1000, videos of each map.
        num_shots: int, 1 to 1000, of each video; a shot has 10 s on average.
        seed: int >= 0; other seeds give other maps and walks.
        workers: int, number of processes.
        show: callable that prints a line, or None.
    Returns: (folder of the videos, CSV file with the map of each).
    Raises: ImportError: vizdoom is missing. ValueError: a bad argument.
        FileExistsError: the folder holds another archive.
    """
    checks.check_whole("num_maps", num_maps, 2, NUM_MAPS)
    checks.check_whole("num_walks", num_walks, 1, 1000)
    checks.check_whole("num_shots", num_shots, 1, 1000)
    checks.check_whole("seed", seed, 0, 1 << 31)
    checks.check_whole("workers", workers, 1, 1000)
    walks.check_installed()
    directory = pathlib.Path(directory).absolute()
    settings = {"num_maps": num_maps, "num_shots": num_shots, "seed": seed}
    _check_same(directory, {**settings, "num_walks": num_walks})
    maps = random.Random(seed).sample(sorted(walks.MAPS), num_maps)
    jobs = {
        directory / "videos" / f"{name}-{number}.mp4": (name, number)
        for number in range(num_walks)
        for name in maps
    }
    _record({"videos": jobs}, num_shots, seed, workers, show)
    labels = directory / "labels.csv"
    rows = [(video.name, name) for video, (name, _) in jobs.items()]
    files.write_csv(labels, ("path", "label"), rows)
    return directory / "videos", labels


def _check_same(directory, settings):
    path = directory / "domain.json"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        files.write_json(path, settings)
    found = files.read_json(path)
    if found != settings:
        raise FileExistsError(
            f"{directory} must hold a domain of {settings}. Got: one of"
            f" {found}. Choose another folder."
        )


def _jobs(directory, maps, num_walks):
    """Dict of split -> {path of a video: (map, number of the walk)}."""
    walks_of = {
        "train": (maps["train"], range(num_walks)),
        "validation": (maps["validation"], range(NUM_WALKS)),
        "test": (maps["test"], range(NUM_WALKS)),
        "revisits": (maps["train"], [FIRST_REVISIT]),
    }
    return {
        split: {
            directory / split / "videos" / f"{name}-{number}.mp4": (
                name,
                number,
            )
            for number in numbers
            for name in names
        }
        for split, (names, numbers) in walks_of.items()
    }


def _record(jobs, num_shots, seed, workers, show):
    """Records the walks that are missing, in other processes."""
    missing = [
        (path.parent, *walk)
        for of_split in jobs.values()
        for path, walk in of_split.items()
        if not path.exists()
    ]
    total = sum(map(len, jobs.values()))
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as scratch,
        futures.ProcessPoolExecutor(
            workers, context, initializer=_enter_own_folder, initargs=(scratch,)
        ) as pool,
    ):
        started = [
            pool.submit(walks.record_walk, *walk, num_shots, seed)
            for walk in missing
        ]
        try:
            for done in futures.as_completed(started):
                path = done.result()
                if show is not None:
                    left = sum(not job.done() for job in started)
                    show(f"{total - left}/{total} {path.name}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _enter_own_folder(scratch):
    """Gives this process a working directory of its own.

    The game makes a folder in the working directory, and ends the process if
    another process makes it at the same time.
    """
    os.chdir(tempfile.mkdtemp(dir=scratch))


def _middle_object(things):
    """Name of the largest object over the picture's middle, or None."""
    least = _SMALLEST_SHARE * walks.HEIGHT * walks.WIDTH
    middle = walks.WIDTH / 2
    over = [
        (width * height, name)
        for name, category, left, _, width, height in things
        if category not in _PASSING
        and left < middle < left + width
        and width * height > least
    ]
    return max(over)[1] if over else None


def _common_objects(found):
    """The objects that are in the middle of a picture in the most maps."""
    maps = collections.defaultdict(set)
    for video, rows in found.items():
        for row in rows:
            maps[_middle_object(row["things"])].add(_map_of(video))
    maps.pop(None, None)
    order = sorted(maps, key=lambda name: (-len(maps[name]), name))
    return frozenset(order[:NUM_OBJECTS])


def _map_of(video):
    return video.stem.rpartition("-")[0]


def _label(task, row, video, objects):
    """The label of a frame for a task: str, or None if it has none."""
    if task == "object":
        name = _middle_object(row["things"])
        return name if name in objects else None
    if task == "depth":
        return f"depth {sum(row['ahead'] >= edge for edge in _DEPTH_EDGES)}"
    if task == "count":
        monsters = sum(
            category == "Monster" and width * height > 40
            for _, category, _, _, width, height in row["things"]
        )
        return f"monsters {min(_MOST_MONSTERS, monsters)}"
    return _map_of(video)


def ranges(rows, label):
    """Where a label holds.

    Args:
        rows: list of the dicts of a walk's frames, see `walks.record_walk`.
        label: callable of such a dict -> str or None.
    Returns: list of (start in seconds, stop in seconds, label), in order, from
        half a frame before the first frame to half a frame after the last one;
        ranges end at cuts.
    """
    found, start = [], 0
    keys = ((label(row), row["shot"]) for row in rows)
    for (name, _), of_key in itertools.groupby(keys):
        stop = start + sum(1 for _ in of_key)
        if name is not None:
            seconds = (
                round(max(0, place - 0.5) / walks.FRAMES_PER_SECOND, 3)
                for place in (start, stop)
            )
            found.append((*seconds, name))
        start = stop
    return found


def _write_labels(folder, found, objects):
    """Writes a file for each task; returns their numbers of ranges."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for task in TASKS:
        rows = [
            (video.name, *row)
            for video, of_video in found.items()
            for row in ranges(
                of_video,
                functools.partial(_label, task, video=video, objects=objects),
            )
        ]
        files.write_csv(folder / f"{task}.csv", range_labels.COLUMNS, rows)
        counts[task] = len(rows)
    return counts


def main(argv):
    """Makes the domain that the flags describe; prints a summary."""
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    given = flags.FLAGS
    if not given.output:
        raise app.UsageError("--output must be given.")
    counts = make_domain(
        given.output,
        hours=given.hours,
        num_maps=given.maps,
        seed=given.seed,
        workers=given.workers,
    )
    for split, numbers in counts.items():
        labels = ", ".join(f"{task} {numbers[task]}" for task in TASKS)
        print(
            f"{split}: {numbers['videos']} videos,"
            f" {numbers['seconds'] / 3600:.2f} h; labelled ranges: {labels}"
        )


if __name__ == "__main__":  # as a library, it must not define flags
    flags.DEFINE_string("output", None, "Folder to write to; required.")
    flags.DEFINE_float("hours", 2.0, "Approximate hours of training video.")
    flags.DEFINE_integer("maps", NUM_MAPS, "Maps in all, from 6 to 59.")
    flags.DEFINE_integer("seed", 0, "Other seeds give other walks.")
    flags.DEFINE_integer("workers", 1, "Number of processes.")
    commands.run("python -m vivi_keras.demo.freedoom", main)
