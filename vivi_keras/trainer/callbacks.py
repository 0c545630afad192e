"""What happens beside the training: logs, checkpoints."""

import csv
import functools
import math
import pathlib
import resource
import signal
import sys
import time

import keras
from absl import logging

from vivi_keras import files
from vivi_keras.checks import reason
from vivi_keras.trainer import workers


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves every N steps and when training ends.

    Where a step is the last of an epoch, it saves when the epoch ends. So it
    stands after the callbacks that write: a run that is killed in between
    does the steps, and what was written of them, again.

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
        # One call may come after several steps (steps_per_execution).
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

    Stands before SaveCheckpoints, so that no such weights are saved.

    Args:
        manager: checkpoints.CheckpointManager; its last one is named.
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
    """Ends training after the step in which SIGTERM comes.

    Of several workers it may come to one alone; all of them end after the
    same step, or each would wait for ever for the one that is gone. It listens
    while `fit` runs; entered as a context, between calls of `fit` too, where
    the signal would else end the process.

    Attributes:
        stopped: whether it came.
    """

    def __init__(self):
        super().__init__()
        self.stopped = False
        self.before = None  # the handler that it stands in for

    def __enter__(self):
        self.before = signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(self, *error):
        signal.signal(signal.SIGTERM, self.before)
        self.before = None

    def on_train_begin(self, logs=None):
        self.any_worker = workers.any_worker(self.model.distribute_strategy)
        self.alone = self.before is None
        if self.alone:
            self.__enter__()

    def on_train_end(self, logs=None):
        if self.alone:
            self.__exit__()

    def on_train_batch_end(self, batch, logs=None):
        if self.any_worker(self.stopped):
            self.stopped = True
            self.model.stop_training = True

    def _stop(self, number, frame):
        self.stopped = True


class TestLabels(keras.callbacks.Callback):
    """Adds top-1 and top-5 accuracy on test images to the logs of an epoch.

    Stands before callbacks that write logs. The encoder is used as after
    training: whole images, no change of colours, moving averages.

    Args:
        batches: tf.data.Dataset of {"image": uint8 [N, H, W, 3], "label":
            int [N]}, the test set once.
        every_steps: test at the end of epochs whose step is a multiple of it,
        last_step: and of this step.
    """

    def __init__(self, batches, every_steps, last_step):
        super().__init__()
        self.batches = batches
        self.every_steps = every_steps
        self.last_step = last_step
        self.classify = None

    def on_epoch_end(self, epoch, logs=None):
        import tensorflow as tf

        step = self.model.steps_done
        if step == self.last_step or step % self.every_steps == 0:
            if self.classify is None:  # traced once
                self.classify = tf.function(
                    self.model.classify, reduce_retracing=True
                )
            logs.update(test_labels(self.classify, self.batches))


def test_labels(classify, batches) -> dict:
    """Top-1 and top-5 accuracy of a classifier.

    Args:
        classify: uint8 [N, H, W, 3] -> logits [N, K]; a `tf.function` where
            it should be fast.
        batches: see `TestLabels`.
    Returns: {"test_top1": float in [0, 1]}, and "test_top5" where there are
        more than 5 classes.
    """
    import tensorflow as tf

    right, count = {}, 0
    for batch in batches:
        logits, labels = classify(batch["image"]), batch["label"]
        count += len(labels)
        for k in (1, 5):
            if k == 1 or logits.shape[-1] > k:
                hits = tf.math.in_top_k(labels, logits, k)
                found = int(tf.reduce_sum(tf.cast(hits, "int32")))
                right[f"test_top{k}"] = right.get(f"test_top{k}", 0) + found
    return {name: hits / count for name, hits in right.items()}


class WriteMetrics(keras.callbacks.Callback):
    """Appends one row to metrics.csv at the end of each epoch of `fit`.

    Rows of steps that a resumed run does again are dropped first. Stands
    after the callbacks that add to the logs. What cannot be written (a full
    disk) is warned of and written with the next row.

    Args:
        file: path of the CSV file; columns step, seconds, learning_rate and
            whatever is in the logs.
    """

    def __init__(self, file):
        super().__init__()
        self.file = pathlib.Path(file)
        self.rows = []

    def on_train_begin(self, logs=None):
        self.start, step = time.monotonic(), self.model.steps_done
        rows = self.rows if self.rows else self._read()
        # An epoch that goes on writes the row that ended it before its time.
        last = step - 1 if self.model.resumed else step
        self.rows = [row for row in rows if int(row["step"]) <= last]

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "step": self.model.steps_done,
            "seconds": round(time.monotonic() - self.start, 2),
            "learning_rate": self.model.learning_rate,
            **{name: float(value) for name, value in (logs or {}).items()},
        }
        self.rows.append(row)
        try:
            self._write()
        except OSError as error:
            logging.warning("A row of metrics was not written: %s", error)

    def _read(self):
        """The rows of the file; warns of those that are none."""
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

    Both are means over the epoch so far, for the progress bar and for the
    callbacks that come later. The first step, which traces the model, counts
    for neither.

    Args:
        images_per_step: int, of all replicas.
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
        """One line on the run so far.

        Args:
            started: `time.monotonic()` when the program started.
        """
        if not self.seconds:
            return f"No speed to tell; peak memory {_peak_memory()}."
        rate = self.steps * self.images_per_step / self.seconds
        return (
            f"{rate:,.0f} images/s, {self.waited / self.seconds:.1%} of the"
            f" time waiting for input, peak memory {_peak_memory()}, first"
            f" step after {self.first_step_at - started:.1f} s."
        )


def _peak_memory():
    """Of this process, and of its first GPU where there is one."""
    import tensorflow as tf

    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    text = f"{peak / 2**30:.2f} GiB"
    if tf.config.list_logical_devices("GPU"):
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        text += f" (GPU {peak / 2**30:.2f} GiB)"
    return text


def sparing(write):
    """A callback's method that warns where it fails."""

    @functools.wraps(write)
    def warned(self, *args, **kwargs):
        import tensorflow as tf

        try:
            return write(self, *args, **kwargs)
        except (
            OSError,
            ValueError,
            RuntimeError,
            tf.errors.OpError,
        ) as error:
            logging.warning("%s: %s", type(self).__name__, reason(error))

    return warned
