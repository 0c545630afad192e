"""Plans a run: which settings suit an archive, this machine and a budget.

docs/choosing.md explains the rules and the numbers.
"""

import dataclasses
import math
import os
import time

import av
import keras
import numpy as np

from vivi_keras import checks, files

# All values are [O].
FRAMES = 30_000  # stored frames that are enough for a small archive
FRAME_RATES = (1.0, 4.0)  # least and most stored frames a second
MOST_OPENED = 200  # videos that are opened to measure the archive
DECODED_A_SECOND = 150  # frames that one process prepares per second
VIDEO_RATE = 25.0  # frames a second of a video whose header states no rate
START_SECONDS = 60.0  # to start the programs of all stages
# What a run takes beside its steps, to compile them and for the probe's scores,
# and what a verdict takes without fine-tuning.
RUN_SECONDS = 45.0
FINE_TUNED_IMAGES = 15_000  # fine-tuning takes as long as training on so many
TRIALS_SHARE = 0.25  # of the time left for trials and training
TRIAL_STEPS = 1 / 5  # of the run's steps, at most, for each trial
# Shorter trials do not show which level is better, so there are none.
LEAST_TRIAL_STEPS = 20
LEAST_STEPS, MOST_IMAGES = 20, 5_000_000
STORED_SIDE = 2  # times the training size: the largest that a verdict tries


@dataclasses.dataclass(frozen=True)
class Archive:
    """What is known of an archive before it is prepared.

    Attributes:
        num_videos: about how many of its files can be opened.
        seconds: about how long they are together.
        short_side: median short side, in pixels.
        broken: dict name -> reason, of the files that were tried and cannot be
            opened.
        video_rate: mean number of frames a second.
    """

    num_videos: int
    seconds: float
    short_side: int
    broken: dict
    video_rate: float = VIDEO_RATE


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        frames_per_second, short_side: settings for vivi-prepare.
        image_size: pixels a side for training.
        steps: number of steps of the whole run; a trial of a level has fewer.
        images_per_second: measured number of images a second that this machine
            trains on; None if the steps were given.
        seconds: dict stage -> about how long it takes, for the stages for which
            this is known.
    """

    frames_per_second: float
    short_side: int
    image_size: int
    steps: int
    images_per_second: float | None
    seconds: dict


def config_suffix() -> str:
    """The end of the name of the configs that suit this machine.

    "_demo" for CPUs, "" for a GPU or TPU.
    """
    if any(
        name.startswith("cpu") for name in keras.distribution.list_devices()
    ):
        return "_demo"
    return ""


def read_or_make(
    file,
    inputs,
    config,
    budget_seconds,
    *,
    videos,
    steps=None,
    writes=True,
    **options,
):
    """The plan of an earlier call or, if there was none, a new one.

    Args:
        file: JSON file of the plan.
        inputs: dict of what must be the same in every call.
        config: ConfigDict of the training.
        budget_seconds: float, used only if there is no plan yet.
        videos: see `measure_archive`.
        steps: int, the steps of training, or None: as many as the budget
            allows.
        writes: whether to write the file.
        **options: of `make_plan`: `num_choices`, `has_labels`, `fine_tune`,
            `workers`.
    Returns: (Archive, Plan).
    Raises: ValueError: the file is of other inputs, or as `make_plan`.
    """
    from vivi_keras.runs import batches

    known = files.read_json(file)
    if known is not None:
        _check_same(file, known["inputs"], inputs)
        return Archive(**known["archive"]), Plan(**known["plan"])
    archive = measure_archive(videos)
    if archive.num_videos < 2:
        raise ValueError(
            "videos must be at least 2, since other videos are the negatives."
            f" Got: 1 that can be opened, of {videos}"
        )
    if steps is None:
        plan = make_plan(
            archive,
            budget_seconds,
            images_per_second=measure_speed(config),
            images_per_step=batches.images_per_step(config),
            image_size=config.data.image_size,
            **options,
        )
    else:
        plan = plan_steps(
            archive, steps, config.data.image_size, options["workers"]
        )
    if writes:
        content = {
            "inputs": inputs,
            "archive": dataclasses.asdict(archive),
            "plan": dataclasses.asdict(plan),
        }
        files.write_json(file, content, sort_keys=False)
    return archive, plan


def _check_same(file, known, inputs):
    differ = [
        f"{key} {known.get(key)!r} before, {value!r} now"
        for key, value in inputs.items()
        if known.get(key) != value
    ]
    if differ:
        raise ValueError(
            f"output must be a folder of the same run. Got: {file} of another"
            f" one: {'; '.join(differ)}. Choose another folder."
        )


def parse_budget(text) -> float:
    """Seconds of a text such as "90s", "30m", "2h" or "45" (minutes).

    >>> plan.parse_budget("1.5h")
    5400.0
    """
    factors = {"s": 1, "m": 60, "h": 3600}
    word = str(text).strip().lower()
    number, factor = word, 60
    if word[-1:] in factors:
        number, factor = word[:-1], factors[word[-1]]
    try:
        seconds = float(number) * factor
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(
            f"budget must be a time such as 90s, 30m or 2h. Got: {text!r}"
        )
    return seconds


def check_labels(labels, videos) -> None:
    """Raises ValueError if no row of a labels file names one of the videos.

    Each row is checked once the videos are prepared (`range_labels.join`).
    """
    from vivi_keras.data import range_labels
    from vivi_keras.features import own_labels
    from vivi_keras.prepare import find_videos

    if not own_labels.is_csv(labels):
        return
    found, _ = find_videos.find_videos(videos, ())
    names = {os.path.basename(file.name) for file in found}
    rows, _ = range_labels.read_range_labels(labels)
    if found and not any(os.path.basename(row.path) in names for row in rows):
        raise ValueError(
            f"{labels} must name videos of {videos}. Got: none of them, but"
            f" {rows[0].path!r} and others"
        )


def measure_archive(videos) -> Archive:
    """Opens the videos of an archive, or some of many, without decoding.

    Args:
        videos: as for `vivi_keras.prepare.prepare`, but local.
    Raises: ValueError: there is no video that can be opened.
    """
    from vivi_keras.prepare import find_videos

    found, _ = find_videos.find_videos(videos, ())
    found = [file for file in found if file.status == "waiting"]
    tried = found
    if len(found) > MOST_OPENED:
        places = np.linspace(0, len(found) - 1, MOST_OPENED).round()
        tried = [found[int(place)] for place in places]
    sides, total, frames, broken = [], 0.0, 0.0, {}
    for file in tried:
        try:
            seconds, side, rate = _look(file.source.path)
        except (av.FFmpegError, OSError, ValueError) as error:
            broken[file.name] = checks.reason(error)
            continue
        total += seconds
        frames += seconds * rate
        sides.append(side)
    if not sides:
        raise ValueError(
            f"videos must have a video that can be opened. Got: {videos} with"
            f" {len(found)} files, of which none can"
        )
    factor = len(found) / len(tried)
    return Archive(
        round(len(sides) * factor),
        total * factor,
        int(np.median(sides)),
        broken,
        frames / total if total else VIDEO_RATE,
    )


def _look(path):
    """(seconds, short side, frames a second) of a video by its header."""
    with av.open(path) as container:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        stream = container.streams.video[0]
        seconds = (container.duration or 0) / av.time_base
        if not seconds and stream.duration:
            seconds = float(stream.duration * stream.time_base)
        side = min(stream.codec_context.width, stream.codec_context.height)
        rate = float(stream.average_rate or 0) or VIDEO_RATE
    return seconds, side, rate


def measure_speed(config, steps=4) -> float:
    """Images a second of a config's training step on this machine.

    The batch is random, and no weights are downloaded.
    """
    from vivi_keras.runs import batches, build

    rows, rng = config.data.batch_size, np.random.default_rng(0)
    batch = {
        name: rng.integers(0, 2, (rows, *spec.shape[1:])).astype(spec.dtype)
        for name, spec in build.element_spec(config).items()
    }

    model = build.build_model(config, load_start=False)
    for _ in range(2):  # the first one compiles
        model.train_on_batch(batch)
    start = time.monotonic()
    for _ in range(steps):
        model.train_on_batch(batch)
    seconds = time.monotonic() - start
    return steps * batches.images_per_step(config) / seconds


def choose_frame_rate(seconds) -> float:
    """Frames a second to store: many of a short archive, few of a long one."""
    low, high = FRAME_RATES
    return float(np.clip(round(2 * FRAMES / seconds) / 2, low, high))


def make_plan(
    archive,
    budget_seconds,
    *,
    images_per_second,
    images_per_step,
    image_size,
    num_choices=1,
    has_labels=True,
    fine_tune=True,
    workers=1,
) -> Plan:
    """Divides a budget among the stages of a run.

    Args:
        archive: Archive.
        budget_seconds: float, for everything.
        images_per_second: float, see `measure_speed`.
        images_per_step: int.
        image_size: int, pixels a side for training.
        num_choices: int, how many levels and rates are compared first.
        has_labels: whether there will be a verdict.
        fine_tune: whether the verdict includes fine-tuning.
        workers: int, number of processes that prepare.
    Raises: ValueError: the budget is too small; the message says how much is
        needed.
    """
    rate = choose_frame_rate(archive.seconds)
    preparing = _preparing(archive, workers)
    # Each stored frame is embedded once. Without gradients, this takes about a
    # third of the time of training on it.
    indexing = archive.seconds * rate / (3 * images_per_second)
    verdict = RUN_SECONDS if has_labels else 0.0
    if has_labels and fine_tune:
        verdict += FINE_TUNED_IMAGES / images_per_second
    fixed = START_SECONDS + preparing + indexing + verdict + RUN_SECONDS
    step_seconds = images_per_step / images_per_second
    least = fixed + LEAST_STEPS * step_seconds
    if budget_seconds < least:
        raise ValueError(
            f"budget must be at least {math.ceil(least / 60)}m for"
            f" {archive.seconds / 3600:.2f} h of video on this machine. Got:"
            f" {_duration(budget_seconds)}"
        )
    left, trials = budget_seconds - fixed, 0.0
    most_steps = int(MOST_IMAGES / images_per_step)
    if num_choices > 1 and has_labels:
        of_each = (
            TRIALS_SHARE * left / num_choices - RUN_SECONDS
        ) / step_seconds
        of_each = int(min(of_each, TRIAL_STEPS * most_steps))
        if of_each >= LEAST_TRIAL_STEPS:
            trials = num_choices * (RUN_SECONDS + of_each * step_seconds)
    steps = min(int((left - trials) / step_seconds), most_steps)
    return Plan(
        rate,
        _short_side(archive, image_size),
        image_size,
        steps,
        images_per_second,
        {
            "prepare": preparing,
            "trials": trials,
            "train": RUN_SECONDS + steps * step_seconds,
            "verdict": verdict,
            "index": indexing,
        },
    )


def plan_steps(archive, steps, image_size, workers) -> Plan:
    """The plan of a run whose steps are given, the same on every machine.

    Args: as `make_plan`; steps: int >= 1.
    """
    return Plan(
        choose_frame_rate(archive.seconds),
        _short_side(archive, image_size),
        image_size,
        steps,
        None,
        {"prepare": _preparing(archive, workers)},
    )


def _preparing(archive, workers):
    """Seconds to prepare an archive, about."""
    decoded = archive.seconds * archive.video_rate
    return decoded / (DECODED_A_SECOND * workers)


def _short_side(archive, image_size):
    return min(archive.short_side, STORED_SIDE * image_size)


def has_trials(plan) -> bool:
    """Whether levels are compared first: the budget may be too small."""
    return plan.images_per_second is None or plan.seconds["trials"] > 0


def trial_steps(plan, num_choices, images_per_step) -> int:
    """Steps of each trial."""
    if plan.images_per_second is None:
        return max(1, int(TRIAL_STEPS * plan.steps))
    seconds = plan.seconds["trials"] / max(1, num_choices) - RUN_SECONDS
    return max(1, round(seconds * plan.images_per_second / images_per_step))


def describe(archive, plan) -> str:
    """The plan as lines for a console."""
    frames = archive.seconds * plan.frames_per_second
    stages = ", ".join(
        f"{name} {_duration(seconds)}"
        for name, seconds in plan.seconds.items()
        if seconds
    )
    lines = [
        f"Archive: {archive.num_videos} videos, {archive.seconds / 3600:.2f} h,"
        f" short side {archive.short_side} pixels"
        + (
            f"; {len(archive.broken)} cannot be opened"
            if archive.broken
            else ""
        ),
        f"Kept: {plan.frames_per_second:g} frames a second, about"
        f" {frames:,.0f}, short side {plan.short_side} pixels",
        f"Training: {plan.steps} steps at {plan.image_size} pixels",
    ]
    if plan.images_per_second is None:
        lines.append(f"Time: {stages}; training was not measured")
    else:
        lines[-1] += (
            f"; {plan.images_per_second:.0f} images a second were measured here"
        )
        total = _duration(sum(plan.seconds.values()))
        lines.append(f"Time: about {total} ({stages})")
    return "\n".join(lines)


def _duration(seconds):
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
