"""What happens beside the training: logs, checkpoints."""

import csv
import pathlib
import time

import keras


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves every N steps and when training ends.

    Args:
        manager: checkpoints.CheckpointManager.
        every_steps: int N.
    """

    def __init__(self, manager, every_steps):
        super().__init__()
        self.manager = manager
        self.every_steps = every_steps
        self.saved_step = None

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.step) % self.every_steps == 0:
            self._save()

    def on_train_end(self, logs=None):
        self._save()

    def _save(self):
        step = int(self.model.step)
        if step != self.saved_step:
            self.manager.save()
            self.saved_step = step


class WriteMetrics(keras.callbacks.Callback):
    """Appends one row to metrics.csv at the end of each epoch of `fit`.

    Rows of steps that a resumed run does again are dropped first.

    Args:
        file: path of the CSV file; columns step, seconds, images_per_second,
            learning_rate and the metrics.
        images_per_step: int.
    """

    def __init__(self, file, images_per_step):
        super().__init__()
        self.file = pathlib.Path(file)
        self.images_per_step = images_per_step
        self.rows = []

    def on_train_begin(self, logs=None):
        self.start = self.then = time.monotonic()
        self.then_step = int(self.model.step)
        if self.file.exists():
            with self.file.open(newline="", encoding="utf-8") as file:
                rows = [*csv.DictReader(file)]
            self.rows = [r for r in rows if int(r["step"]) <= self.then_step]

    def on_epoch_end(self, epoch, logs=None):
        now, step = time.monotonic(), int(self.model.step)
        images = (step - self.then_step) * self.images_per_step
        row = {
            "step": step,
            "seconds": round(now - self.start, 2),
            "images_per_second": round(images / (now - self.then), 1),
            "learning_rate": float(self.model.optimizer.learning_rate),
            **{name: float(value) for name, value in (logs or {}).items()},
        }
        self.then, self.then_step = now, step
        self.rows.append(row)
        with self.file.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*row], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)
