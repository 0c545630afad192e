"""Saves and restores checkpoints; they are written in the background.

A checkpoint is a folder with one NumPy archive, the same for TensorFlow and
JAX. The folder gets its final name when all of it is on disk. So each one is
complete, and the one with the highest step is the last checkpoint. Checkpoints
of version 0.1, in TensorFlow's format, can still be read.
"""

import concurrent.futures
import logging
import os
import pathlib
import re
import shutil
import time
import zipfile
import zlib

import numpy as np

from vivi_keras import files
from vivi_keras.checks import reason
from vivi_keras.levels import replicas

PREFIX = "step_"
_FILE = "state.npz"
RETRY_SECONDS = 1.0
_CHUNK_BYTES = 1 << 20


class CheckpointManager:
    """Saves and restores a built ViviModel with its optimizer.

    A checkpoint has everything that a step depends on: weights, optimizer
    (with schedule, loss scale and moving averages), sums of the metrics, and
    the step, which seeds the views and gives the position in the data.

    Args:
        model: built and compiled ViviModel.
        workdir: folder of the run.
        keep: number of newest checkpoints to keep.
        keep_every_steps: None, or M to also keep those at multiples of M.
        writes: False for workers that only read checkpoints.
    """

    def __init__(
        self, model, workdir, keep=3, keep_every_steps=None, writes=True
    ):
        self.model = model
        self.folder = pathlib.Path(workdir) / "checkpoints"
        self.keep = keep
        self.keep_every_steps = keep_every_steps
        self.writes = writes
        self.variables = _named_variables(model)
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._pending = None

    def save(self, wait=False) -> None:
        """Copies the values now and writes them in the background.

        If a write fails (full disk), it logs a warning and tries once more;
        training goes on in any case, until the next save. `check_saved`
        checks that the last checkpoint exists.

        Args:
            wait: return only when the write has ended.
        """
        if self.writes:
            self.wait()  # at most one copy of the values at a time
            values = {
                name: np.array(replicas.local(variable.value))
                for name, variable in self.variables.items()
            }
            self._check_finite(values)
            self._pending = self._writer.submit(
                self._write, self.model.steps_done, values
            )
        if wait:
            self.wait()

    def _check_finite(self, values):
        """Raises ValueError if weights are not finite; nothing is deleted."""
        names = [name for name in values if name.startswith("model/")]
        bad = [name for name in names if not np.isfinite(values[name]).all()]
        if bad:
            steps = self.steps()
            raise ValueError(
                f"Weights of step {self.model.steps_done} are not finite, in"
                f" {len(bad)} of {len(names)} arrays; they were not saved. The"
                f" last checkpoint: {steps[-1] if steps else 'none'}. A lower"
                " learning rate or optimizer.clip_norm may help;"
                " --skip_nonfinite leaves such steps out."
            )

    def wait(self) -> None:
        """Waits until no checkpoint is being written."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def check_saved(self) -> None:
        """Raises RuntimeError unless the model's step is on disk."""
        self.wait()
        steps, step = self.steps(), self.model.steps_done
        if self.writes and step not in steps:
            raise RuntimeError(
                f"The checkpoint of step {step} could not be written into"
                f" {self.folder}. The last good checkpoint:"
                f" {steps[-1] if steps else 'none'}. With some space freed,"
                " the same command goes on from it."
            )

    def _write(self, step, values):
        for attempt in (1, 2):
            try:
                write_checkpoint(self.folder / f"{PREFIX}{step:08d}", values)
                self._drop_old()
                return
            except Exception as error:  # NumPy's or the system's
                logging.warning(
                    "The checkpoint of step %d could not be written"
                    " (attempt %d of 2): %s",
                    step,
                    attempt,
                    reason(error),
                )
                time.sleep(RETRY_SECONDS * (attempt == 1))

    def _drop_old(self):
        steps = self.steps()
        for step in steps[: -self.keep]:
            every = self.keep_every_steps
            if not every or step % every:
                shutil.rmtree(self.folder / f"{PREFIX}{step:08d}")

    def steps(self) -> list[int]:
        """The steps of the existing checkpoints, in ascending order."""
        return saved_steps(self.folder.parent)

    def restore(self) -> int | None:
        """Restores the last readable checkpoint; returns its step, or None.

        Raises: ValueError: it has another model, or all are damaged. OSError:
            it cannot be read, for example because of its permissions; it may
            be undamaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            path = self.folder / f"{PREFIX}{step:08d}"
            values = read_checkpoint(path)
            if values is None:
                continue
            _check_same(path, values, self.variables)
            for name, variable in self.variables.items():
                variable.assign(values[name])
            self.model.resumed = True
            return step
        if steps:
            raise ValueError(
                f"All checkpoints in {self.folder} are damaged, as the lines"
                " above say. Remove the folder to start again"
            )
        return None


def saved_steps(workdir) -> list[int]:
    """The steps of a work directory's checkpoints, in ascending order.

    Other files and folders are ignored.
    """
    return sorted(
        int(path.name.removeprefix(PREFIX))
        for path in (pathlib.Path(workdir) / "checkpoints").glob(f"{PREFIX}*")
        if re.fullmatch(PREFIX + r"\d{8,}", path.name) and path.is_dir()
    )


def _named_variables(model):
    """Dict: position -> keras.Variable, of the model and its optimizer.

    Keras numbers names within a process ("lstm_1"), so two models of one
    config have different names, but the same positions.
    """
    return {
        f"{kind}/{index:04d}": variable
        for kind, owner in (("model", model), ("optimizer", model.optimizer))
        for index, variable in enumerate(owner.variables)
    }


def write_checkpoint(path, values) -> None:
    """Writes a dict of arrays; the folder gets its name when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f"unfinished_{path.name}"
    for old in path.parent.glob("unfinished_*"):
        shutil.rmtree(old, ignore_errors=True)
    unfinished.mkdir()
    try:
        np.savez(unfinished / _FILE, **values)
        for file in unfinished.iterdir():
            _to_disk(file)
    except BaseException:
        # On a full disk, free the space for other files.
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    unfinished.rename(path)
    _to_disk(path.parent)


def _to_disk(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(path) -> dict | None:
    """Reads a dict of arrays; logs a warning and returns None on damage.

    Raises: OSError: the system cannot read the files.
    """
    # Read the bytes first: an error of the system is not reported as damage.
    for file in sorted(path.iterdir()):
        if not file.is_dir():
            with file.open("rb") as stream:
                while stream.read(_CHUNK_BYTES):
                    pass
    try:
        if (path / _FILE).exists():
            with np.load(path / _FILE, allow_pickle=False) as archive:
                return dict(archive)  # verifies the CRC of each array
        return _read_tensorflow(path)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        logging.warning(
            "The checkpoint %s is damaged (%s); falling back to the one"
            " before.",
            path,
            reason(error),
        )
        return None


def _read_tensorflow(path):
    """Reads a checkpoint of version 0.1."""
    if not (path / "state.index").exists():
        raise ValueError(f"it has no {_FILE}")
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        raise ImportError(
            f"TensorFlow must be installed to read {path}, a checkpoint of"
            " version 0.1 in TensorFlow's format."
        ) from error

    try:
        reader = tf.train.load_checkpoint(files.tensorflow_path(path / "state"))
        return {
            name: reader.get_tensor(name)
            for name in reader.get_variable_to_shape_map()
        }
    except (
        tf.errors.OpError,
        IndexError,  # raised for a truncated file
        RuntimeError,
    ) as error:
        raise ValueError(str(error)) from error


def _check_same(path, values, variables):
    for name in sorted({*values, *variables}):
        there = values[name].shape if name in values else None
        here = tuple(variables[name].shape) if name in variables else None
        if there != here:
            raise ValueError(
                f"The checkpoint {path} is of another model: {name} has shape"
                f" {there} there and {here} here (None: it is missing)"
            )
