"""Full fine-tuning with VTAB's lightweight sweep, on any encoder and task.

Source: Zhai et al. 2019, arXiv 1910.04867, section 3, and its public code.
"""

import dataclasses
import hashlib
import math

import numpy as np
import tensorflow as tf

from vivi_keras.evaluation import settings as settings_lib
from vivi_keras.features import cache
from vivi_keras.features import encoder as encoder_lib

PROTOCOL = settings_lib.FINETUNE
# Increased if the same settings give other scores; saved parts then expire.
VERSION = 2
# Heads are padded to one of these, so that tasks share compiled steps.
HEAD_WIDTHS = (16, 64, 128, 512, 1024)


class Untrainable(ValueError):
    """Raised if a module cannot be trained; the message says why."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Settings of a sweep; the defaults are VTAB's lightweight one.

    Every learning rate is tried with every number of steps. The setting with
    the best validation accuracy is trained again on all images, `runs` times
    with different seeds. If settings score equally, the first in the order of
    `settings` is chosen; the public code does not choose settings.
    """

    learning_rates: tuple = (0.1, 0.01)
    steps: tuple = (2500, 10000)
    batch_size: int = 512
    runs: int = 3
    momentum: float = 0.9
    decay: float = 0.1
    decay_at: tuple = (0.3, 0.6, 0.9)  # fractions of the steps

    def __post_init__(self):
        for name in ("learning_rates", "steps"):
            values = getattr(self, name)
            if not values or min(values) <= 0:
                raise ValueError(
                    f"{name} must be one or more numbers above 0. Got: {values}"
                )
        if self.batch_size < 1 or self.runs < 1:
            raise ValueError(
                "batch_size and runs must be at least 1. Got:"
                f" {self.batch_size} and {self.runs}"
            )

    @property
    def settings(self):
        """(learning rate, steps) of each setting, in order."""
        return [(r, s) for r in self.learning_rates for s in self.steps]

    def rate(self, step, start, num_steps):
        """The learning rate of a step, counted from 0.

        As in VTAB's public code, where a step at a boundary still has the
        rate before it (`tf.train.piecewise_constant`).
        """
        passed = sum(step > share * num_steps for share in self.decay_at)
        return start * self.decay**passed

    def num_images(self, num_tasks=1):
        """Number of images trained on, if the longest setting is chosen."""
        steps = sum(s for _, s in self.settings) + self.runs * max(self.steps)
        return num_tasks * steps * self.batch_size


VTAB = Sweep()
# Feasible on two cores with a small encoder at 64 pixels.  [O]
SMALL = Sweep(steps=(150, 600), batch_size=64, runs=1)


class FineTuner:
    """Trains an encoder with a linear head, and reuses compiled steps.

    Args:
        encoder: a trainable `features.encoder.Encoder`.
    Raises: Untrainable.
    """

    def __init__(self, encoder):
        if not getattr(encoder, "trainable_variables", []):
            raise Untrainable(
                f"{encoder.path} has no trainable variables: only a reusable"
                " SavedModel or a Keras application can be fine-tuned"
            )
        if any(v.dtype == tf.float16 for v in encoder.variables):
            raise Untrainable(
                f"{encoder.path} has float16 weights, too coarse for small"
                " updates: fine-tune an export with float32 weights"
            )
        if encoder.modes == {False}:
            raise Untrainable(
                f"{encoder.path} was saved for training=False alone: export it"
                " with training=True too to fine-tune it"
            )
        self.encoder = encoder
        self._start = [v.numpy() for v in encoder.variables]
        self._velocities = [
            tf.Variable(tf.zeros_like(v), trainable=False)
            for v in encoder.trainable_variables
        ]
        self._heads = {}  # width -> _Head

    def train(
        self, images, labels, num_classes, sweep, setting, seed, on_step=None
    ):
        """Trains from the module's original weights and a zero head.

        Args:
            images: float32 [N, H, W, 3] in [0, 1]. labels: int [N].
            setting: (learning rate, steps).
            seed: int, for the order of images and the module's randomness.
            on_step: callable without arguments, called after each step.
        Returns: callable images -> classes int64 [N], valid until the next
            call of `train`.
        Raises: FloatingPointError: the loss is not finite.
        """
        learning_rate, num_steps = setting
        head = self._head(num_classes, images.shape[1:3])
        self._reset(head)
        tf.random.set_seed(seed)
        batch_size = self.encoder_batch(sweep.batch_size)
        order = endless_order(len(images), batch_size, seed)
        for step in range(num_steps):
            rows = next(order)
            arguments = (
                tf.constant(images[rows]),
                tf.constant(labels[rows], tf.int32),
                tf.constant(
                    sweep.rate(step, learning_rate, num_steps), tf.float32
                ),
                tf.constant(sweep.momentum, tf.float32),
                tf.constant(num_classes),
            )
            with encoder_lib.add_name_to_errors(
                self.encoder.path, "be trained"
            ):
                loss = head.step(*arguments)
            if on_step is not None:
                on_step()
            if (step + 1) % 50 == 0 or step + 1 == num_steps:
                _check_loss(loss, self.encoder, setting, step)
        return lambda batch: head.predict(self.encoder, batch, num_classes)

    def encoder_batch(self, wanted):
        """The batch size to use: the module's, if it has a fixed one."""
        fixed = self.encoder.batch_size
        return wanted if fixed is None else fixed

    def notes(self, wanted_batch):
        """What is unusual about the training just done, as a list of str."""
        found, batch = [], self.encoder_batch(wanted_batch)
        if batch != wanted_batch:
            found.append(
                f"takes batches of {batch} only: fine-tuned with {batch} images"
                f" a step in place of {wanted_batch}"
            )
        if self.encoder.modes == set():
            found.append(
                "has no training mode: fine-tuned as it is called to predict,"
                " with the stored statistics of any batch norm"
            )
        elif self._statistics_are_frozen():
            found.append(
                "its batch norm statistics stay as stored when it is called"
                " with training=True"
            )
        return found

    def _statistics_are_frozen(self):
        kept = [
            np.array_equal(variable.numpy(), value)
            for variable, value in zip(
                self.encoder.variables, self._start, strict=True
            )
            if "moving_" in variable.name
        ]
        return bool(kept) and all(kept)

    def restore(self):
        """Restores the module's original weights."""
        for variable, value in zip(
            self.encoder.variables, self._start, strict=True
        ):
            variable.assign(value)

    def _reset(self, head):
        self.restore()
        for variable in [*self._velocities, *head.state]:
            variable.assign(tf.zeros_like(variable))

    def _head(self, num_classes, size):
        width = next((w for w in HEAD_WIDTHS if w >= num_classes), num_classes)
        if width not in self._heads:
            blank = np.zeros((1, *size, 3))
            num_features = self.encoder.features(blank).shape[1]
            self._heads[width] = _Head(
                self.encoder, self._velocities, num_features, width
            )
        return self._heads[width]


class _Head:
    """A linear head of some width, zero at the start, and its compiled step."""

    def __init__(self, encoder, velocities, num_features, width):
        self.kernel = tf.Variable(tf.zeros([num_features, width]))
        self.bias = tf.Variable(tf.zeros([width]))
        own = [
            tf.Variable(tf.zeros_like(v), trainable=False)
            for v in (self.kernel, self.bias)
        ]
        self.state = [self.kernel, self.bias, *own]
        variables = [*encoder.trainable_variables, self.kernel, self.bias]
        slots = [*velocities, *own]

        # Without autograph, which would replace our errors by its own.
        @tf.function(autograph=False, reduce_retracing=True)
        def step(images, labels, rate, momentum, num_classes):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                logits = self.logits(
                    _trained(encoder, images), num_classes
                )  # [N, width]
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels, logits
                )
                loss = tf.reduce_mean(losses)
            gradients = tape.gradient(
                loss, variables, unconnected_gradients="zero"
            )
            # Momentum as in tf.compat.v1: the rate is not part of the sum.
            for variable, slot, gradient in zip(
                variables, slots, gradients, strict=True
            ):
                slot.assign(momentum * slot + gradient)
                variable.assign_sub(rate * slot)
            return loss

        self.step = step

    def logits(self, values, num_classes):
        """Logits [N, width]; practically -infinity beyond `num_classes`."""
        logits = tf.matmul(values, self.kernel) + self.bias
        spare = tf.range(tf.shape(logits)[1]) >= num_classes
        return tf.where(spare[None, :], tf.constant(-1e9), logits)

    def predict(self, encoder, images, num_classes):
        """Predicts classes int64 [N] of images float32 [N, H, W, 3]."""
        values = encoder.features(images)
        logits = values @ self.kernel.numpy() + self.bias.numpy()
        return logits[:, :num_classes].argmax(axis=1)


def _trained(encoder, images):
    try:
        return encoder(images, training=True)
    except (TypeError, ValueError) as error:
        raise Untrainable(
            f"{encoder.path} cannot be called with training=True:"
            f" {str(error).strip().splitlines()[0]}"
        ) from error


def _check_loss(loss, encoder, setting, step):
    if not math.isfinite(float(loss)):
        raise FloatingPointError(
            f"Fine-tuning of {encoder.path} gave a loss of {float(loss)} at"
            f" step {step + 1} with (learning rate, steps) {setting}."
        )


def endless_order(count, batch_size, seed):
    """Yields batches of indices; each pass uses every image once."""
    generator = np.random.default_rng(seed)
    left = np.empty(0, np.int64)
    while True:
        while len(left) < batch_size:
            left = np.concatenate([left, generator.permutation(count)])
        yield left[:batch_size]
        left = left[batch_size:]


def run(tuner, task, image_size, sweep, kept=None, seeds=None, on_step=None):
    """Runs the whole sweep on one task.

    Args:
        tuner: FineTuner. task: an ImageTask or TfdsTask.
        image_size: int, wanted pixels per side.
        sweep: Sweep.
        kept: dict-like with the finished parts of an interrupted sweep;
            each newly finished part is added.
        seeds: ints, one per run; 0, 1, ... `sweep.runs` - 1 if None. On a
            pool larger than 1,000, each seed also draws other images.
        on_step: callable without arguments, called after each step.
    Returns: list of dicts, one per run: "seed", "accuracy" in [0, 1],
        "learning_rate", "steps", "validation" accuracy by setting.
    """
    kept = {} if kept is None else kept
    size = tuner.encoder.size_for(image_size)
    results = []
    try:
        for seed in range(sweep.runs) if seeds is None else seeds:
            train, held = task.split(seed)
            pool = _Pool(task, size, np.concatenate([train, held]))
            chosen_by = _validation(
                tuner, task, pool, len(train), sweep, kept, seed, on_step
            )
            best = max(sweep.settings, key=lambda s: chosen_by[_name(s)])
            key = f"test/{seed}/{_name(best)}"
            if key not in kept:
                kept[key] = _test(
                    tuner, task, pool, size, sweep, best, seed, on_step
                )
                for note in tuner.notes(sweep.batch_size):
                    tuner.encoder.note(note)
            results.append(
                {
                    "seed": seed,
                    "accuracy": kept[key],
                    "learning_rate": best[0],
                    "steps": best[1],
                    "validation": chosen_by,
                    "num_train": len(pool.rows),
                }
            )
    finally:
        tuner.restore()
    return results


def _validation(tuner, task, pool, num_train, sweep, kept, seed, on_step):
    """Validation accuracy by setting; equal draws are validated once."""
    draw = pool.key
    found = {}
    for setting in sweep.settings:
        key = f"validation/{draw}/{_name(setting)}"
        if key not in kept:
            images, labels = pool.arrays()
            try:
                predict = tuner.train(
                    images[:num_train],
                    labels[:num_train],
                    task.num_classes,
                    sweep,
                    setting,
                    seed,
                    on_step,
                )
                hits = predict(images[num_train:]) == labels[num_train:]
                kept[key] = float(np.mean(hits))
            except FloatingPointError:
                kept[key] = -1.0  # diverged: worse than any other
        found[_name(setting)] = kept[key]
    if max(found.values()) < 0:
        raise FloatingPointError(
            f"Task {task.name}: no setting of {sweep.settings} trained"
            f" {tuner.encoder.path} without diverging."
        )
    return found


def _test(tuner, task, pool, size, sweep, setting, seed, on_step):
    images, labels = pool.arrays()
    predict = tuner.train(
        images, labels, task.num_classes, sweep, setting, seed, on_step
    )
    hits = count = 0
    for batch, classes in task.batches("test", size, cache.BATCH_SIZE):
        hits += int(np.sum(predict(batch) == classes))
        count += len(classes)
    return hits / count


class _Pool:
    """The images of one draw, decoded at most once, when needed."""

    def __init__(self, task, size, rows):
        self._task, self._size, self.rows = task, size, rows
        self.key = hashlib.sha256(rows.tobytes()).hexdigest()[:12]
        self._arrays = None

    def arrays(self):
        """(images float32 [N, H, W, 3], labels int64 [N])."""
        if self._arrays is None:
            wanted = int(self.rows.max()) + 1
            parts = list(
                self._task.batches(
                    "train", self._size, cache.BATCH_SIZE, wanted
                )
            )
            images = np.concatenate([p[0] for p in parts])
            labels = np.concatenate([p[1] for p in parts])
            self._arrays = images[self.rows], labels[self.rows]
        return self._arrays


def _name(setting):
    return f"{setting[0]:g}x{setting[1]}"
