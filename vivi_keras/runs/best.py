"""Saves the encoder of the step that the probe scored best.

The saved encoder can also be a mix, in which each weight is a weighted mean of
that of the step and that of the start, as in WiSE-FT (Wortsman et al., 2022,
arXiv 2109.01903).
"""

import json
import math
import pathlib
import zipfile
import zlib

import keras
import numpy as np

from vivi_keras import files
from vivi_keras.features import own_labels
from vivi_keras.levels import replicas

FILE, START_FILE = "best.npz", "start.npz"
SCORE = "probe_linear"


class KeepBest:
    """Saves the best encoder of a run in its work directory.

    The start is step 0. Only an encoder whose accuracy is higher than the
    start's, by more than one standard error of the difference, replaces the
    start. Of these encoders, the one with the highest accuracy is kept. If
    accuracies are equal, the earlier step wins and, within a step, the mix with
    the larger share of the start. The file stays valid if a run is stopped and
    resumes from an earlier step.

    Args:
        workdir: folder of the run.
        start_shares: floats in (0, 1); each step's weights are also tried as
            `(1 - share) * weights + share * start`, moving averages of batch
            norm included.
        labels: hash of the labels that the encoders are scored with, or None.
    Attributes:
        image_size: int, pixels a side of the images that the encoders are
            scored with; saved with the scores. None if it was not set.
    """

    def __init__(self, workdir, start_shares=(), labels=None):
        self._workdir = pathlib.Path(workdir)
        self._shares = sorted(start_shares, reverse=True)
        self._labels = labels
        self._record = None
        self.image_size = None

    def open(self, encoder, step):
        """Reads what an earlier part of the run has saved.

        Args: as for a call.
        Raises: ValueError: a file is missing, damaged, of another encoder or
            of other labels.
        """
        if self._record is not None:
            return
        record, self._values, self._start = {"scores": {}}, {}, {}
        if step:
            found = _read(self._workdir)
            if found is None:
                raise ValueError(
                    f"{self._workdir} must have {FILE}, as a run must have"
                    " keep_best from its first step on. Got: a run of"
                    f" {step} steps without it"
                )
            record, self._values, self._start_by_video = found
            _check_shapes(self._workdir / FILE, self._values, encoder)
            if record.get("labels") != self._labels:
                raise ValueError(
                    "probe must have the labels that the run in"
                    f" {self._workdir} began with. Got: other labels or images"
                )
            if self._shares:
                self._start = _load(self._workdir / START_FILE)
                _check_shapes(self._workdir / START_FILE, self._start, encoder)
            self.image_size = record["image_size"]
        self._record = {**record, "labels": self._labels}

    def __call__(self, encoder, step, measure):
        """Measures the encoder of a step and its mixes with the start.

        Args:
            encoder: keras.Model or layer; it is the same after the call.
            step: int, number of steps that it has been trained.
            measure: function without arguments that scores the encoder. It
                returns a dict of accuracies, one of them named `SCORE`, and
                float [V], what each video adds to that one.
        Returns: the scores, and those of each mix as "NAME_mixed_SHARE".
        """
        self.open(encoder, step)
        values, (scores, by_video) = _values(encoder), measure()
        scores = dict(scores)
        self._record["image_size"] = self.image_size
        if not step:
            self._start_by_video = by_video
        if self._shares:
            scores |= self._try_mixes(encoder, step, values, scores, measure)
        self._take(step, by_video, values)
        self._record["scores"][str(step)] = scores
        _write(self._workdir, self._record, self._values, self._start_by_video)
        return scores

    def _try_mixes(self, encoder, step, values, scores, measure):
        found = {}
        if not step:
            self._start = values
            _save(self._workdir / START_FILE, values)
        for share in self._shares:
            mixed = scores
            if step:
                mix = _mix(values, self._start, share)
                try:
                    _assign(encoder, mix)
                    mixed, by_video = measure()
                finally:
                    _assign(encoder, values)
                self._take(step, by_video, mix, share)
            found |= {f"{k}_mixed_{share:g}": v for k, v in mixed.items()}
        return found

    def _take(self, step, by_video, values, share=0.0):
        score = float(by_video.sum())
        gains = by_video - self._start_by_video
        if step and (
            score <= self._record["score"]
            or gains.sum() <= own_labels.standard_error(gains)
        ):
            return
        self._record |= {"step": step, "score": score, "start_share": share}
        self._record.pop("rejected", None)  # is about an earlier encoder
        self._values = values


def _values(encoder):
    """The encoder's variables as arrays, by their number."""
    found = {}
    for number, variable in enumerate(encoder.variables):
        value = np.array(replicas.local(variable.value))
        if value.dtype.name == "bfloat16":  # which NumPy cannot save
            value = value.astype(np.float32)
        found[f"{number:04d}"] = value
    return found


def _assign(encoder, values):
    for name, variable in zip(sorted(values), encoder.variables, strict=True):
        variable.assign(keras.ops.cast(values[name], variable.dtype))


def _check_shapes(path, values, encoder):
    shapes = [tuple(variable.shape) for variable in encoder.variables]
    found = [tuple(values[name].shape) for name in sorted(values)]
    if found != shapes:
        raise ValueError(
            f"{path} must be of the run's encoder. Got: {len(found)} arrays of"
            f" {sum(map(math.prod, found)):,} numbers, not its {len(shapes)} of"
            f" {sum(map(math.prod, shapes)):,}"
        )


def _mix(values, start, share):
    """The weighted mean; arrays of integers are not mixed."""
    return {
        name: (
            ((1 - share) * value + share * start[name]).astype(value.dtype)
            if np.issubdtype(value.dtype, np.floating)
            else value
        )
        for name, value in values.items()
    }


def _save(path, arrays):
    with files.write_whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def _load(path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError as error:
        raise _spoilt(path, "no such file") from error
    except (
        *(ValueError, EOFError, TypeError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise _spoilt(path, f"a damaged file ({error})") from error


def _spoilt(path, got):
    return ValueError(f"{path} must be as vivi-pretrain wrote it. Got: {got}")


def reject(workdir, start) -> None:
    """Puts the start in the place of a run's best encoder.

    Args:
        workdir: folder of the run.
        start: keras.Model or layer, the start.
    Raises: ValueError: the file is damaged or of another encoder.
    """
    record, values, start_by_video = _read(workdir)
    _check_shapes(pathlib.Path(workdir) / FILE, values, start)
    record |= {
        "rejected": {key: record[key] for key in ("step", "start_share")},
        "step": 0,
        "start_share": 0.0,
        "score": record["scores"]["0"][SCORE],
    }
    _write(workdir, record, _values(start), start_by_video)


def has_best(workdir) -> bool:
    """Whether a run has saved its best encoder."""
    return (pathlib.Path(workdir) / FILE).exists()


def read(workdir):
    """Reads the best step that a run has saved.

    Returns: None, or (record, values). `record` is a dict of the best "step",
        its "score", its "start_share" (0.0: not mixed), the "scores" of all
        scored steps (a dict step, as text -> dict) and the "image_size" that
        was used for scoring. If the start has taken the place of the best
        encoder, it also has "rejected", a dict with the "step" and
        "start_share" of that encoder. `values` is a dict of the encoder's
        arrays.
    Raises: ValueError: the file is damaged.
    """
    found = _read(workdir)
    return None if found is None else found[:2]


def _write(workdir, record, values, start_by_video):
    """Writes what `_read` reads."""
    kept = {"record": json.dumps(record), "start_by_video": start_by_video}
    _save(pathlib.Path(workdir) / FILE, {**kept, **values})


def _read(workdir):
    path = pathlib.Path(workdir) / FILE
    if not path.exists():
        return None
    values = _load(path)
    start_by_video = values.pop("start_by_video", None)
    try:
        record = json.loads(str(values.pop("record")))
    except (ValueError, KeyError) as error:
        raise _spoilt(path, f"a damaged file ({error})") from error
    record = {"start_share": 0.0, "image_size": None, **record}
    return record, values, start_by_video


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
    _check_shapes(pathlib.Path(workdir) / FILE, values, encoder)
    _assign(encoder, values)
    return record


def summary(record) -> str:
    """One line about a record: the best step, and the scores to compare."""
    scores = record["scores"]
    steps = sorted(map(int, scores))
    ends = ", ".join(
        f"{name} {scores[str(step)][SCORE]:.3f}"
        for name, step in (("start", steps[0]), ("last", steps[-1]))
    )
    if "rejected" in record:
        return (
            f"Step {record['rejected']['step']} was best by the probe ({ends}),"
            " but the verdict found it worse than the start. vivi-export takes"
            " the start."
        )
    if not record["step"]:
        return (
            "No later step was better than the start by more than a standard"
            f" error ({ends}): nothing was adapted. vivi-export takes the"
            " start."
        )
    share, mixed = record["start_share"], ""
    if share:
        mixed = f", mixed with {share:g} of the start,"
    return (
        f"Step {record['step']}{mixed} was best, {SCORE}"
        f" {record['score']:.3f} ({ends}); vivi-export takes it."
    )
