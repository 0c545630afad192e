"""Saves the encoder of the step that the probe scored best."""

import json
import pathlib
import zipfile
import zlib

import numpy as np

from vivi_keras import files
from vivi_keras.levels import replicas

FILE = "best.npz"
SCORE = "probe_linear"


class KeepBest:
    """Saves the best encoder of a run in its work directory.

    The start is step 0. If scores are equal, the first one wins, so the start
    is replaced only by something better. The file stays valid if a run is
    stopped and resumes from an earlier step.

    Args:
        workdir: folder of the run.
    """

    def __init__(self, workdir):
        self._workdir = pathlib.Path(workdir)
        self._record = None

    def __call__(self, model, scores):
        """Takes the scores of the model's step.

        Args:
            model: ViviModel.
            scores: dict of accuracies, with `SCORE`.
        """
        if self._record is None:
            found = read(self._workdir)
            self._record = {"scores": {}} if found is None else found[0]
            self._values = {} if found is None else found[1]
        step, record = model.steps_done, self._record
        record["scores"][str(step)] = scores
        if scores[SCORE] > record.get("score", -1.0):
            record |= {"step": step, "score": scores[SCORE]}
            self._values = {
                f"{number:04d}": np.array(replicas.local(variable.value))
                for number, variable in enumerate(model.encoder.variables)
            }
        with (
            files.write_whole(self._workdir / FILE) as partial,
            partial.open("wb") as file,
        ):
            np.savez(file, record=json.dumps(record), **self._values)


def has_best(workdir) -> bool:
    """Whether a run has saved its best encoder."""
    return (pathlib.Path(workdir) / FILE).exists()


def read(workdir):
    """Reads the best step that a run has saved.

    Returns: None, or (record, values): record is a dict of "step", its "score",
        and the "scores" of each step (as text) that was scored; values is a
        dict of the encoder's arrays.
    Raises: ValueError: the file is damaged.
    """
    file = pathlib.Path(workdir) / FILE
    try:
        with np.load(file, allow_pickle=False) as archive:
            values = dict(archive)
        return json.loads(str(values.pop("record"))), values
    except FileNotFoundError:
        return None
    except (
        *(ValueError, KeyError, EOFError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise ValueError(
            f"{file} must be as vivi-pretrain wrote it. Got: a damaged file"
            f" ({error})"
        ) from error


def restore(encoder, workdir) -> dict:
    """Gives an encoder the weights of a run's best step.

    Returns: the record, see `read`.
    Raises: FileNotFoundError: the run saved none. ValueError: the file is
        damaged or of another encoder.
    """
    found = read(workdir)
    if found is None:
        raise FileNotFoundError(
            f"{workdir} must hold {FILE}, which vivi-pretrain writes with"
            " --keep_best. Got: a folder without it"
        )
    record, values = found
    there = [values[name].shape for name in sorted(values)]
    here = [tuple(variable.shape) for variable in encoder.variables]
    if there != here:
        raise ValueError(
            f"{FILE} in {workdir} must be of the run's encoder. Got:"
            f" {len(there)} arrays, not its {len(here)}"
        )
    for name, variable in zip(sorted(values), encoder.variables, strict=True):
        variable.assign(values[name])
    return record


def summary(record) -> str:
    """One line about a record: the best step, and the scores to compare."""
    scores = record["scores"]
    steps = sorted(map(int, scores))
    ends = ", ".join(
        f"{name} {scores[str(step)][SCORE]:.3f}"
        for name, step in (("start", steps[0]), ("last", steps[-1]))
    )
    if not record["step"]:
        return (
            f"The start was better than each later step ({ends}): nothing was"
            " adapted. vivi-export takes the start."
        )
    return (
        f"Step {record['step']} was best, {SCORE} {record['score']:.3f}"
        f" ({ends}); vivi-export takes it."
    )
