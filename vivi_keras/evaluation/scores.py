"""From accuracies of runs and tasks to the numbers that tables show."""

import numpy as np

from vivi_keras.evaluation import vtab_sources

FINE_TUNING = "finetune"


def over_runs(values, protocol):
    """One number for a cell: VTAB takes the median of runs, others the mean.

    Args:
        values: floats, one a run; at least one.
    """
    if protocol == FINE_TUNING:
        return float(np.median(values))
    return float(np.mean(values))


def vtab_score(accuracies):
    """The VTAB score: the plain mean over all 19 tasks, and group means.

    Args:
        accuracies: dict task name -> accuracy, in any unit.
    Returns: dict with "mean" and each group's name; None where a task of it
        is missing, since a mean over fewer tasks is another score.
    Raises: ValueError for a task that is not of VTAB.
    """
    unknown = sorted(set(accuracies) - set(vtab_sources.SOURCES))
    if unknown:
        raise ValueError(f"Expected VTAB tasks alone; got {unknown}.")
    groups = {"mean": list(vtab_sources.SOURCES)}
    for group in vtab_sources.GROUPS:
        groups[group] = [
            s.name for s in vtab_sources.SOURCES.values() if s.group == group
        ]
    return {
        name: float(np.mean([accuracies[task] for task in own]))
        if all(task in accuracies for task in own)
        else None
        for name, own in groups.items()
    }


def difference(values, others, confidence=0.95):
    """Mean difference of two encoders over paired runs, with its interval.

    Args:
        values, others: floats [R], one a run; run i of both belongs together
            (the same seed).
    Returns: dict "mean", "low", "high", "runs"; the interval is Student's t
        and None with fewer than 2 runs.
    """
    values, others = np.asarray(values, float), np.asarray(others, float)
    if values.shape != others.shape or values.ndim != 1 or not len(values):
        raise ValueError(
            "Expected as many runs of both, at least one; got shapes"
            f" {values.shape} and {others.shape}."
        )
    from scipy import stats

    apart = values - others
    mean, count = float(apart.mean()), len(apart)
    if count < 2:
        return {"mean": mean, "low": None, "high": None, "runs": count}
    error = float(apart.std(ddof=1)) / np.sqrt(count)
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1) * error)
    return {
        "mean": mean,
        "low": mean - half,
        "high": mean + half,
        "runs": count,
    }
