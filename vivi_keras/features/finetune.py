"""Fine-tunes a module with a linear head on its features."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from vivi_keras.features import encoder as encoder_lib

# Heads are padded to one of these, so that tasks share compiled steps.
HEAD_WIDTHS = (16, 64, 128, 512, 1024)


class Untrainable(ValueError):
    """Raised if a module cannot be trained; the message says why."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Settings of a sweep; the defaults are those of VTAB's lightweight sweep.

    Every learning rate is tried with every number of steps. The setting with
    the best validation accuracy is trained again on all images, `runs` times
    with different seeds. If settings score equally, the first in the order of
    `settings` is chosen. (VTAB's public code does not choose settings.)
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


class FineTuner:
    """Trains an encoder with a linear head, and reuses compiled steps.

    Args:
        encoder: a trainable `features.encoder.Encoder`.
        freeze_statistics: whether the encoder is called as it is to predict, so
            that batch norm uses its stored statistics. In a short training on
            few labels, new statistics do much harm.
    Raises: Untrainable.
    """

    def __init__(self, encoder, freeze_statistics=False):
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
        if encoder.modes == {False} and not freeze_statistics:
            raise Untrainable(
                f"{encoder.path} was saved for training=False alone: to"
                " fine-tune it, export it with training=True as well"
            )
        self.encoder = encoder
        self._training = not freeze_statistics
        self._start = [v.numpy() for v in encoder.variables]
        self._velocities = [
            tf.Variable(tf.zeros_like(v), trainable=False)
            for v in encoder.trainable_variables
        ]
        self._heads = {}  # width -> _Head

    def train(
        self,
        images,
        labels,
        num_classes,
        sweep,
        setting,
        seed,
        on_step=None,
        start=None,
    ):
        """Trains from the module's original weights.

        Args:
            images: float32 [N, H, W, 3] in [0, 1]. labels: int [N].
            num_classes: int; labels are below it.
            sweep: Sweep, for the batch size, momentum and decay.
            setting: (learning rate, steps), used instead of the sweep's.
            seed: int, for the order of images and the module's randomness.
            on_step: callable without arguments, called after each step.
            start: kernel [D, num_classes] and bias [num_classes] of the head
                at the start; None for zeros.
        Returns: callable images -> classes int64 [N], valid until the next
            call of `train`.
        Raises: FloatingPointError: the loss is not finite.
        """
        learning_rate, num_steps = setting
        head = self._head(num_classes, images.shape[1:3])
        self._reset(head)
        if start is not None:
            head.assign(*start)
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
        self._trained = head, num_classes
        return lambda batch: head.predict(self.encoder, batch, num_classes)

    def weights(self):
        """The weights after `train`: the encoder's variables and the head.

        Returns: arrays in the order of `Encoder.variables`, kernel float32
            [D, num_classes], bias float32 [num_classes].
        """
        head, count = self._trained
        kernel, bias = head.kernel.numpy(), head.bias.numpy()
        encoder = [variable.numpy() for variable in self.encoder.variables]
        return encoder, kernel[:, :count], bias[:count]

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
                self.encoder,
                self._training,
                self._velocities,
                num_features,
                width,
            )
        return self._heads[width]


class _Head:
    """A linear head of some width, zero at the start, and its compiled step."""

    def __init__(self, encoder, training, velocities, num_features, width):
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
                values = _called(encoder, images, training)
                logits = self.logits(values, num_classes)  # [N, width]
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

    def assign(self, kernel, bias):
        """Sets the first columns of the head."""
        spare = self.bias.shape[0] - len(bias)
        self.kernel.assign(np.pad(kernel, ((0, 0), (0, spare))))
        self.bias.assign(np.pad(bias, (0, spare)))

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


def _called(encoder, images, training):
    try:
        return encoder(images, training=training)
    except (TypeError, ValueError) as error:
        raise Untrainable(
            f"{encoder.path} cannot be called with training={training}:"
            f" {str(error).strip().splitlines()[0]}"
        ) from error


def _check_loss(loss, encoder, setting, step):
    if not math.isfinite(float(loss)):
        raise FloatingPointError(
            f"Fine-tuning of {encoder.path} gave a loss of {float(loss)} at"
            f" step {step + 1} with (learning rate, steps) {setting}."
        )


def endless_order(count, batch_size, seed):
    """Yields batches of indices in random order, each image once per pass."""
    generator = np.random.default_rng(seed)
    left = np.empty(0, np.int64)
    while True:
        while len(left) < batch_size:
            left = np.concatenate([left, generator.permutation(count)])
        yield left[:batch_size]
        left = left[batch_size:]
