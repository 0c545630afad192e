"""Chooses the largest protocol that fits a time budget."""

import dataclasses
import time

import numpy as np

from vivi_keras.evaluation.protocols import finetune
from vivi_keras.features import linear
from vivi_keras.features.finetune import FineTuner, Sweep, Untrainable

_SAMPLE = 16  # images used to measure speeds


@dataclasses.dataclass(frozen=True)
class Rung:
    """One choice: protocols, the sweep if any, and the limit of test images."""

    name: str
    protocols: tuple
    sweep: Sweep | None
    max_test: int | None


def rungs(max_test):
    """Choices, from the largest to the smallest."""
    frozen = ("knn", "linear")
    both = (*frozen, finetune.PROTOCOL)
    one = dataclasses.replace(finetune.VTAB, runs=1)
    small = finetune.SMALL
    return (
        Rung("VTAB's sweep, 3 runs", both, finetune.VTAB, max_test),
        Rung("VTAB's sweep, 1 run", both, one, max_test),
        Rung("short sweep, 3 runs", both, _runs(small, 3), max_test),
        Rung("short sweep, 1 run", both, small, max_test),
        Rung("frozen features", frozen, None, max_test),
        Rung("frozen features, 500 test images", frozen, None, 500),
        Rung("kNN, 500 test images", ("knn",), None, 500),
    )


def _runs(sweep, runs):
    return dataclasses.replace(sweep, runs=runs)


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast an encoder is.

    Attributes:
        forward: seconds per image to compute features.
        training: seconds per training image; None if it cannot be trained.
        probe: seconds to choose and fit a linear probe.
    """

    forward: float
    training: float | None
    probe: float


def measure(encoder, image_size):
    """Measures an encoder's Speed on noise images."""
    size = encoder.size_for(image_size)
    images = np.random.default_rng(0).uniform(size=(_SAMPLE, *size, 3))
    images = images.astype(np.float32)
    features = encoder.features(images)  # the first call is slow
    forward = _seconds(lambda: encoder.features(images)) / _SAMPLE
    # A probe takes longest on random labels, so the estimate is cautious.
    generator = np.random.default_rng(0)
    values = generator.normal(size=(800, features.shape[1]))
    labels = generator.integers(0, 10, 800)
    probe = _seconds(lambda: linear.fit(values, labels, 1e-2), 1)
    probe *= len(linear.STRENGTHS) + 1
    try:
        tuner = FineTuner(encoder)
        training = _training_seconds(tuner, images)
    except Untrainable:
        training = None
    return Speed(forward, training, probe)


def _training_seconds(tuner, images):
    labels = np.arange(_SAMPLE) % 10
    sweep = Sweep((0.01,), (3,), _SAMPLE)

    def train():
        tuner.train(images, labels, 10, sweep, (0.01, 3), 0)

    try:
        train()  # the first call is slow
        return _seconds(train, 1) / 3 / tuner.encoder_batch(_SAMPLE)
    finally:
        tuner.restore()


def _seconds(function, times=3):
    start = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - start) / times


def cost(rung, speeds, num_tasks, num_test):
    """Estimated seconds of a choice.

    Args:
        rung: Rung. speeds: list of Speed, one per encoder.
        num_tasks: int. num_test: int, test images per task.
    """
    tested = num_test if rung.max_test is None else min(num_test, rung.max_test)
    total = 0.0
    for speed in speeds:
        total += num_tasks * speed.forward * (1000 + tested)
        if "linear" in rung.protocols:
            total += num_tasks * speed.probe
        if rung.sweep is not None and speed.training is not None:
            total += speed.training * rung.sweep.num_images(num_tasks)
            total += num_tasks * speed.forward * tested * rung.sweep.runs
    return total


def check(minutes):
    """Raises ValueError unless `minutes` is a valid time (NaN is not)."""
    if not minutes > 0:
        raise ValueError(f"budget_minutes must be above 0. Got: {minutes}")


def choose(minutes, speeds, num_tasks, num_test, max_test=None):
    """The largest choice whose estimate fits.

    Returns: (Rung, text that says which and why). Choices with fine-tuning
        are considered only if an encoder can be trained. If no choice fits,
        the smallest is returned, and the text says so.
    """
    check(minutes)
    choices = rungs(max_test)
    if all(speed.training is None for speed in speeds):
        choices = [rung for rung in choices if rung.sweep is None]
    for rung in choices:
        seconds = cost(rung, speeds, num_tasks, num_test)
        if seconds <= 60 * minutes:
            break
    fits = "fits"
    if seconds > 60 * minutes:
        fits = "does not fit, but is the least there is"
    return rung, (
        f"budget of {minutes:g} minutes: {rung.name}, estimated"
        f" {seconds / 60:.1f} minutes for {num_tasks} tasks, {fits}"
    )
