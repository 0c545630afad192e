"""Callbacks that write to TensorBoard: metrics, views, embeddings, profile.

None of them ends a run: if one cannot write (full disk), it logs a warning
and training goes on.
"""

import pathlib

import keras
import numpy as np

from vivi_keras.trainer import callbacks
from vivi_keras.trainer.strategies import compiled

GRID_ROWS, GRID_COLUMNS = 8, 8


class Summaries(keras.callbacks.Callback):
    """Writes the logs of each epoch and the learning rate for TensorBoard.

    Unlike Keras's own callback, it does not end a run when the disk is full,
    and it counts steps, not epochs.

    Args:
        folder: folder of the event files.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = str(folder)
        self.writer = None

    @callbacks.ignore_write_errors
    def on_epoch_end(self, epoch, logs=None):
        import tensorflow as tf

        # A writer that failed once cannot be used again: make a new one.
        writer, self.writer = self.writer, None
        if writer is None:
            writer = tf.summary.create_file_writer(self.folder)
        rate = self.model.learning_rate
        figures = {"learning_rate": rate, **(logs or {})}
        with writer.as_default(self.model.steps_done):
            for name, value in figures.items():
                tf.summary.scalar(name, float(value))
        self.writer = writer


class ShowViews(keras.callbacks.Callback):
    """Writes a grid of the model's augmented inputs for TensorBoard.

    Each row of the grid is one video.

    Args:
        folder: folder of the event files.
        views: function, step -> float [B, N, H, W, 3] in [0, 1].
        every_epochs: int, number of epochs between two grids.
    """

    def __init__(self, folder, views, every_epochs=20):
        super().__init__()
        self.folder = str(folder)
        self.views = views
        self.every_epochs = every_epochs
        self.shown = False

    @callbacks.ignore_write_errors
    def on_epoch_end(self, epoch, logs=None):
        if self.shown and epoch % self.every_epochs:
            return
        import tensorflow as tf

        self.shown = True
        step = self.model.steps_done
        writer = tf.summary.create_file_writer(self.folder)
        with writer.as_default():
            tf.summary.image("views", grid(self.views(step))[None], step)
        writer.close()


def grid(images):
    """Joins images [B, N, H, W, 3] into one grid image [B H, N W, 3]."""
    images = np.asarray(images)[:GRID_ROWS, :GRID_COLUMNS]
    rows, columns, height, width, _ = images.shape
    images = images.transpose(0, 2, 1, 3, 4)
    return images.reshape(rows * height, columns * width, 3)


class WriteProjector(keras.callbacks.Callback):
    """Writes data for TensorBoard's embedding projector after training.

    Args:
        folder: folder of the event files, where TensorBoard looks for the
            projector's config; the data go to its subfolder "projector".
        images: float [N, H, W, 3] in [0, 1].
        labels: N strings.
    """

    def __init__(self, folder, images, labels):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.images = np.asarray(images)
        self.labels = [str(label) for label in labels]

    @callbacks.ignore_write_errors
    def on_train_end(self, logs=None):
        features = Features(self.model.encoder)(self.images)
        write_projector(self.folder, features, self.images, self.labels)


class Features:
    """Features float32 [N, D] of images float [N, H, W, 3] in [0, 1].

    It always uses the encoder's current weights, and is traced only once for
    images of one size: the last batch is padded.
    """

    def __init__(self, encoder):
        self._encoder = encoder
        self._compiled = {}  # by image size

    def __call__(self, images, batch_size=128):
        encoder, size = self._encoder, images.shape[1:]
        if size not in self._compiled:
            self._compiled[size] = compiled(
                lambda x: encoder(x, training=False), encoder
            )
        parts = []
        for start in range(0, len(images), batch_size):
            part = np.asarray(images[start : start + batch_size], np.float32)
            short = batch_size - len(part) if len(images) > batch_size else 0
            batch = np.pad(part, [(0, short), (0, 0), (0, 0), (0, 0)])
            found = keras.ops.convert_to_numpy(self._compiled[size](batch))
            parts.append(found[: len(part)])
        return np.concatenate(parts).astype(np.float32)


def write_projector(folder, features, images, labels) -> None:
    """Writes features [N, D], images and labels for the projector."""
    from PIL import Image
    from tensorboard.plugins import projector

    shown = folder / "projector"
    shown.mkdir(parents=True, exist_ok=True)
    np.savetxt(shown / "features.tsv", features, "%.5g", delimiter="\t")
    (shown / "labels.tsv").write_text("\n".join(labels) + "\n", "utf-8")
    side = int(np.ceil(np.sqrt(len(images))))
    count, height, width, _ = images.shape
    sprite = np.zeros((side * side, height, width, 3), np.uint8)
    sprite[:count] = np.round(255 * images)
    sprite = sprite.reshape(side, side, height, width, 3)
    sprite = sprite.transpose(0, 2, 1, 3, 4)
    sprite = sprite.reshape(side * height, side * width, 3)
    Image.fromarray(sprite).save(shown / "sprite.png")
    config = projector.ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name="features",
        tensor_path="projector/features.tsv",
        metadata_path="projector/labels.tsv",
    )
    embedding.sprite.image_path = "projector/sprite.png"
    embedding.sprite.single_image_dim.extend([width, height])
    projector.visualize_embeddings(str(folder), config)


class Profile(keras.callbacks.Callback):
    """Writes a TensorBoard profile of the steps [start, stop).

    Args:
        folder: folder of the profile.
        start, stop: ints, numbers of steps, counted from the step at which
            `fit` starts, also in a resumed run.
    Raises: ValueError: unless 0 <= start < stop.
    """

    def __init__(self, folder, start, stop):
        super().__init__()
        if not 0 <= start < stop:
            raise ValueError(
                "The steps to profile must be 0 <= start < stop."
                f" Got: {start}, {stop}"
            )
        self.folder, self.start, self.stop = str(folder), start, stop
        self.first_step = None
        self.running = self.done = False

    def on_train_batch_begin(self, batch, logs=None):
        if self.first_step is None:
            self.first_step = self.model.steps_done
        if self.done or self.running or self._step() < self.start:
            return
        start, _ = _profiler()
        start(self.folder)
        self.running = True

    def on_train_batch_end(self, batch, logs=None):
        if self.running and self._step() >= self.stop:
            self._end()

    def on_train_end(self, logs=None):
        if self.running:
            self._end()

    def _step(self):
        return self.model.steps_done - self.first_step

    @callbacks.ignore_write_errors
    def _end(self):
        _, stop = _profiler()
        stop()
        self.running, self.done = False, True


def _profiler():
    """The functions that start and stop the profiler of Keras's backend."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.profiler.start_trace, jax.profiler.stop_trace
    import tensorflow as tf

    return tf.profiler.experimental.start, tf.profiler.experimental.stop
