"""Callbacks for logs, checkpoints, test scores and stopping."""

import csv
import functools
import math
import pathlib
import resource
import signal
import sys
import time

import keras
import numpy as np
from absl import logging

from vivi_keras import files
from vivi_keras.checks import reason
from vivi_keras.trainer import workers
from vivi_keras.trainer.strategies import compiled


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint every N steps and when training ends.

    After the last step of an epoch, it saves at the end of the epoch. List
    it after the callbacks that write logs: a run that is killed in between
    then repeats these steps and writes their logs again.

    Args:
        manager: checkpoints.CheckpointManager.
        every_steps: int N.
    """

    def __init__(self, manager, every_steps):
        super().__init__()
        self.manager = manager
        self.every_steps = every_steps
        self.saved_step = None

    def on_train_begin(self, logs=None):
        self.count = self.model.steps_done // self.every_steps

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 != (self.params or {}).get("steps"):
            self._save_if_due()

    def on_epoch_end(self, epoch, logs=None):
        self._save_if_due()

    def _save_if_due(self):
        # One call may follow several steps (steps_per_execution).
        count = self.model.steps_done // self.every_steps
        if count > self.count:
            self.count = count
            self._save()

    def on_train_end(self, logs=None):
        self._save()
        self.manager.wait()

    def _save(self):
        step = self.model.steps_done
        if step != self.saved_step:
            self.manager.save()
            self.saved_step = step


class NonFiniteLoss(ValueError):
    """A loss was NaN or infinite."""


class StopAtNonFinite(keras.callbacks.Callback):
    """Raises NonFiniteLoss when a part of the loss is NaN or infinite.

    List it before SaveCheckpoints, so that such weights are not saved.

    Args:
        manager: checkpoints.CheckpointManager; the error names its last step.
    """

    def __init__(self, manager):
        super().__init__()
        self.manager = manager

    def on_train_batch_end(self, batch, logs=None):
        values = {n: float(v) for n, v in (logs or {}).items()}
        if all(math.isfinite(value) for value in values.values()):
            return
        self.manager.wait()
        steps = self.manager.steps()
        parts = ", ".join(f"{n}={v:.6g}" for n, v in values.items())
        raise NonFiniteLoss(
            f"The loss of step {self.model.steps_done} is not finite: {parts}."
            f" The last good checkpoint: {steps[-1] if steps else 'none'}."
            " A lower learning rate or optimizer.clip_norm may help;"
            " --skip_nonfinite leaves such steps out."
        )


class StopAtSigterm(keras.callbacks.Callback):
    """Ends training after the step in which SIGTERM arrives.

    If only one of several workers receives it, all of them end after the
    same step; otherwise the others would wait for that one forever. The signal
    is handled while `fit` runs. As a context manager, it also handles the
    signal between calls of `fit`, where it would otherwise end the process.

    Attributes:
        stopped: bool, whether SIGTERM arrived.
    """

    def __init__(self):
        super().__init__()
        self.stopped = False
        self.before = None  # the handler that this one replaces

    def __enter__(self):
        self.before = signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(self, *error):
        signal.signal(signal.SIGTERM, self.before)
        self.before = None

    def on_train_begin(self, logs=None):
        self.true_on_any_worker = workers.true_on_any_worker(
            getattr(self.model, "distribute_strategy", None)
        )
        self.alone = self.before is None
        if self.alone:
            self.__enter__()

    def on_train_end(self, logs=None):
        if self.alone:
            self.__exit__()

    def on_train_batch_end(self, batch, logs=None):
        if self.true_on_any_worker(self.stopped):
            self.stopped = True
            self.model.stop_training = True

    def _stop(self, number, frame):
        self.stopped = True


class MeasureEvery(keras.callbacks.Callback):
    """Base of callbacks that add values to the logs every N steps.

    The values are measured right after each multiple of N steps, and added to
    the logs at the end of the epoch that contains that step. List the callback
    before those that write logs. A subclass has `measure()`, which returns
    name -> float.

    Args:
        every_steps: int N >= 1.
        last_step: None, or a step after which they are also measured.
        at_start: bool, whether they are also measured before the first step.
            An error ends the run there.
    """

    def __init__(self, every_steps, last_step=None, at_start=False):
        super().__init__()
        if every_steps < 1:
            raise ValueError(
                f"every_steps of {type(self).__name__} must be >= 1."
                f" Got: {every_steps}"
            )
        self.every_steps = every_steps
        self.last_step = last_step
        self.at_start = at_start
        self.found = {}  # last values of this epoch

    def begin(self):
        """Called before the next step; an error ends the run there."""

    def on_train_begin(self, logs=None):
        self.begin()
        self.count = self.model.steps_done // self.every_steps
        if self.at_start and not self.model.steps_done:
            self.measure()

    def on_train_batch_end(self, batch, logs=None):
        # One call may follow several steps (steps_per_execution).
        step = self.model.steps_done
        count = step // self.every_steps
        if count > self.count or step == self.last_step:
            self.count = count
            self.found = self.measure()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update(self.found)
        self.found = {}


class TestLabels(MeasureEvery):
    """Adds top-1 and top-5 accuracy on test images to the logs of an epoch.

    The encoder runs in inference mode: whole images, no colour changes, batch
    norm's moving averages.

    Args:
        batches: batches of {"image": uint8 [N, H, W, 3], "label": int [N]},
            one pass over the test set (`image_batches.ordered_batches`).
        every_steps, last_step: as `MeasureEvery`.
    """

    def __init__(self, batches, every_steps, last_step=None):
        super().__init__(every_steps, last_step)
        self.batches = batches
        self.classify = None

    def measure(self):
        if self.classify is None:  # traced once
            self.classify = compiled(self.model.classify, self.model)
        return test_labels(self.classify, self.batches)


def test_labels(classify, batches) -> dict:
    """Top-1 and top-5 accuracy of a classifier.

    Args:
        classify: uint8 [N, H, W, 3] -> logits [N, K]; pass one that is
            compiled for speed.
        batches: see `TestLabels`.
    Returns: {"test_top1": float in [0, 1]}, and "test_top5" if there are
        more than 5 classes.
    """
    right, count = {}, 0
    for batch in batches:
        logits = keras.ops.convert_to_numpy(classify(batch["image"]))
        labels = keras.ops.convert_to_numpy(batch["label"])
        count += len(labels)
        mine = np.take_along_axis(logits, labels[:, None], axis=1)  # [N, 1]
        higher = np.sum(logits > mine, axis=1)
        # No comparison with NaN is true, so count a row with NaN as wrong.
        higher[~np.isfinite(mine[:, 0])] = logits.shape[1]
        for k in (1, 5):
            if k == 1 or logits.shape[1] > k:
                found = int(np.sum(higher < k))
                right[f"test_top{k}"] = right.get(f"test_top{k}", 0) + found
    return {name: hits / count for name, hits in right.items()}


class WriteMetrics(keras.callbacks.Callback):
    """Appends one row to metrics.csv at the end of each epoch of `fit`.

    Rows of steps that a resumed run repeats are dropped first. List it after
    the callbacks that add to the logs. If a row cannot be written (full
    disk), it logs a warning and writes the row together with the next one.

    Args:
        file: path of the CSV file; columns step, seconds, learning_rate and
            all values in the logs.
    """

    def __init__(self, file):
        super().__init__()
        self.file = pathlib.Path(file)
        self.rows = []

    def on_train_begin(self, logs=None):
        self.start, step = time.monotonic(), self.model.steps_done
        rows = self.rows if self.rows else self._read()
        # If the last epoch was cut short, it goes on: drop its early row.
        last = step - 1 if self.model.resumed else step
        self.rows = [row for row in rows if int(row["step"]) <= last]
        if len(self.rows) < len(rows):
            # Written at once: if the run were killed before the next row, it
            # would go on from a later step, and the dropped rows would seem to
            # be valid.
            self._try_to_write()

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "step": self.model.steps_done,
            "seconds": round(time.monotonic() - self.start, 2),
            "learning_rate": self.model.learning_rate,
            **{name: float(value) for name, value in (logs or {}).items()},
        }
        self.rows.append(row)
        self._try_to_write()

    def _try_to_write(self):
        try:
            self._write()
        except OSError as error:
            logging.warning("A row of metrics was not written: %s", error)

    def _read(self):
        """The valid rows of the file; logs a warning about damaged ones."""
        if not self.file.exists():
            return []
        text = self.file.read_text(encoding="utf-8", errors="replace")
        rows = [*csv.DictReader(text.replace("\0", "").splitlines())]
        good = [
            row
            for row in rows
            if None not in row  # more cells than columns
            and None not in row.values()  # or fewer
            and (row.get("step") or "").isdecimal()
        ]
        if len(good) < len(rows):
            logging.warning(
                "%s has %d damaged rows of %d; they are left out.",
                self.file,
                len(rows) - len(good),
                len(rows),
            )
        return good

    def _write(self):
        names = dict.fromkeys(name for row in self.rows for name in row)
        with (
            files.write_whole(self.file) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, [*names], restval="")
            writer.writeheader()
            writer.writerows(self.rows)


class MeasureSpeed(keras.callbacks.Callback):
    """Adds images_per_second and input_wait_share to the logs.

    Both are means over the epoch so far, for the progress bar and the
    callbacks after this one. They leave out the first step, which traces the
    model.

    Args:
        images_per_step: int, summed over all replicas.
    Attributes:
        first_step_at: `time.monotonic()` after the first step, or None.
    """

    def __init__(self, images_per_step):
        super().__init__()
        self.images_per_step = images_per_step
        self.first_step_at = None
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0
        self.epoch = (0, 0.0, 0.0)

    def on_train_begin(self, logs=None):
        self._then()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = (self.steps, self.seconds, self.waited)

    def on_train_batch_end(self, batch, logs=None):
        if self.first_step_at is None:
            self.first_step_at = time.monotonic()
        else:
            self.steps += self.model.steps_done - self.then_step
            self.seconds += time.monotonic() - self.then
            self.waited += self.model.input_wait_seconds - self.then_waited
        self._then()
        self._add(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._add(logs)

    def _then(self):
        self.then = time.monotonic()
        self.then_step = self.model.steps_done
        self.then_waited = self.model.input_wait_seconds

    def _add(self, logs):
        steps, seconds, waited = (
            now - then
            for now, then in zip(
                (self.steps, self.seconds, self.waited), self.epoch, strict=True
            )
        )
        if logs is not None and seconds > 0:
            rate = steps * self.images_per_step / seconds
            logs["images_per_second"] = round(rate, 1)
            logs["input_wait_share"] = round(waited / seconds, 4)

    def report(self, started) -> str:
        """One line about the speed and memory of the run so far.

        Args:
            started: `time.monotonic()` when `runs.run.pretrain` was called.
        """
        if not self.seconds:
            return f"Speed not measured; peak memory {_peak_memory()}."
        rate = self.steps * self.images_per_step / self.seconds
        return (
            f"{rate:,.0f} images/s, {self.waited / self.seconds:.1%} of the"
            f" time waiting for input, peak memory {_peak_memory()}, first"
            f" step after {self.first_step_at - started:.1f} s."
        )


class ShowProgress(keras.callbacks.Callback):
    """Shows the progress of `fit` on a terminal, or in a file.

    On a terminal or in a notebook, a line of at most 79 characters is
    updated all the time. Elsewhere, one line a minute is printed. Each shows
    up to three values: the loss and its first parts.

    Args:
        stream: file to write to; None for standard output.
        every_seconds: None, or seconds between two lines.
    """

    WIDTH = 79

    def __init__(self, stream=None, every_seconds=None):
        super().__init__()
        self.stream = sys.stdout if stream is None else stream
        self.rewrites = self.stream.isatty() or "ipykernel" in sys.modules
        if every_seconds is None:
            every_seconds = 0.1 if self.rewrites else 60.0
        self.every_seconds = every_seconds

    def on_train_begin(self, logs=None):
        self.then = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.start = epoch, time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() - self.then >= self.every_seconds:
            self._show(batch + 1, logs)

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self.params.get("epochs")
        if self.rewrites or last or self.model.stop_training:
            self._show(None, logs, end="\n")

    def _show(self, done, logs, end="\r"):
        self.then = time.monotonic()
        epochs, steps = (self.params.get(name) for name in ("epochs", "steps"))
        place = f"epoch {self.epoch + 1}/{epochs}"
        if done is not None:
            place += f", step {done}" + (f"/{steps}" if steps else "")
            if steps:
                left = (self.then - self.start) * (steps - done) / done
                place += f", {left:.0f} s left"
        line = f"{place}: " + ", ".join(_shown(logs or {}))
        line = line[: self.WIDTH]
        if self.rewrites:
            line = line.ljust(self.WIDTH) + end
        else:
            line += "\n"
        self.stream.write(line)
        self.stream.flush()


def _shown(logs):
    """At most three values as texts; those of the loss come first."""
    losses = [name for name in logs if name.endswith("_loss")]
    names = dict.fromkeys(["loss", *losses, *logs])
    names = [name for name in names if name in logs][:3]
    return [f"{name} {float(logs[name]):.4g}" for name in names]


def _peak_memory():
    """Peak memory of this process, and of its first GPU if it has one."""
    # Linux reports KiB, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    text = f"{peak / 2**30:.2f} GiB"
    peak = _gpu_peak()
    return text if peak is None else f"{text} (GPU {peak / 2**30:.2f} GiB)"


def _gpu_peak():
    """Peak memory of the first GPU in bytes, or None without a GPU."""
    if keras.backend.backend() == "jax":
        import jax

        used = jax.devices()[0].memory_stats()  # None for a CPU
        return (used or {}).get("peak_bytes_in_use")
    import tensorflow as tf

    if not tf.config.list_logical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def ignore_write_errors(write):
    """Decorates a callback's method: its errors become logged warnings."""

    @functools.wraps(write)
    def warned(self, *args, **kwargs):
        try:
            return write(self, *args, **kwargs)
        except Exception as error:
            if not isinstance(error, _write_errors()):
                raise
            logging.warning("%s: %s", type(self).__name__, reason(error))

    return warned


def _write_errors():
    """Errors of failed writes; TensorFlow's too if it is imported."""
    tensorflow = sys.modules.get("tensorflow")
    errors = (OSError, ValueError, RuntimeError)
    return (
        errors if tensorflow is None else (*errors, tensorflow.errors.OpError)
    )
