"""Loads the results of several runs and computes their differences."""

import dataclasses
import pathlib

import numpy as np

from vivi_keras import files as files_lib
from vivi_keras.evaluation.protocols import finetune
from vivi_keras.evaluation.reports import maps, scores
from vivi_keras.evaluation.tasks import vtab_tasks


def difference(values, others, confidence=0.95):
    """Mean difference of two encoders over paired runs, with an interval.

    Args:
        values, others: floats [R], one per run; run i of both is a pair
            (the same seed).
    Returns: dict "mean", "low", "high", "runs"; Student's t interval, None
        with fewer than 2 runs.
    """
    values, others = np.asarray(values, float), np.asarray(others, float)
    if values.shape != others.shape or values.ndim != 1 or not len(values):
        raise ValueError(
            "values and others must have as many runs, and at least one. Got:"
            " shapes"
            f" {values.shape} and {others.shape}"
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


def difference_text(found, unit=1.0) -> str:
    """A `difference` as text.

    Args:
        found: dict of `difference`.
        unit: float, 100 for per cent of values in [0, 1].

    >>> difference_text({"mean": 1.62, "low": 0.2, "high": 3.0})
    '+1.6 [+0.2, +3.0]'
    """
    text = f"{unit * found['mean']:+.1f}"
    if found["low"] is not None:
        low, high = unit * found["low"], unit * found["high"]
        text += f" [{low:+.1f}, {high:+.1f}]"
    return text


CONFIDENCE = 0.95
SETTINGS = ("image_size", "max_test", "sweep")  # those that change the scores


@dataclasses.dataclass
class Column:
    """One encoder of a report: the rows of one or several modules.

    `runs` has the result rows of each module, `digests` the modules' hashes,
    `settings` the scoring settings, and `folders` the folders of each;
    `departures` lists the differences from the scoring of published VTAB-1k.
    """

    name: str
    runs: list = dataclasses.field(default_factory=list)
    digests: list = dataclasses.field(default_factory=list)
    settings: list = dataclasses.field(default_factory=list)
    folders: list = dataclasses.field(default_factory=list)
    departures: list = dataclasses.field(default_factory=list)

    def cell(self, task, protocol):
        """Accuracies in per cent of all modules and seeds, as a list."""
        return [
            value
            for rows in self.runs
            for value in _values(rows, task, protocol)
        ]

    def add_departures(self, departures):
        """Adds departures that are not yet in the list."""
        self.departures = scores.unique([*self.departures, *departures])

    def units(self, task, protocol):
        """The samples of an interval: several modules, or one module's seeds.

        Returns: dict unit -> accuracy in per cent.
        """
        if len(self.runs) > 1:
            found = {
                place: _values(rows, task, protocol)
                for place, rows in enumerate(self.runs)
            }
            return {
                place: scores.aggregate_runs(values, protocol)
                for place, values in found.items()
                if values
            }
        return {
            row["seed"]: 100.0 * row["accuracy"]
            for row in self.runs[0]
            if (row["task"], row["protocol"]) == (task, protocol)
            and row["accuracy"] is not None
        }


@dataclasses.dataclass
class Comparison:
    """Columns scored with the same settings, and what was left out."""

    columns: list
    settings: dict
    tasks: dict  # name -> notes
    left_out: list
    results: list

    @property
    def protocols(self):
        return scores.unique(
            row["protocol"]
            for column in self.columns
            for rows in column.runs
            for row in rows
        )

    @property
    def departures(self):
        """Column name -> differences from the scoring of published VTAB-1k."""
        return {column.name: column.departures for column in self.columns}

    def cells_of(self, protocol):
        """Task -> (group, column name -> accuracies), for tasks with any."""
        found = {}
        for task, notes in self.tasks.items():
            cells = {c.name: c.cell(task, protocol) for c in self.columns}
            if any(cells.values()):
                found[task] = (notes["group"], cells)
        return found


def load(specs):
    """Reads the results written by `vivi-evaluate`.

    Args:
        specs: list of "DIR": every encoder of a results folder, under its own
            name; or "NAME=DIR,DIR,...": the scored modules of the folders,
            as one encoder trained several times.
    Returns: Comparison. Tasks whose images differ between folders are left
        out and listed as such.
    Raises: FileNotFoundError, ValueError: no results, different suites, a
        name given twice.
    """
    columns, results = {}, []
    names = [spec.rpartition("=")[0] for spec in specs]
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise ValueError(
            f"Encoders must have different names. Got: {sorted(twice)} twice."
            " NAME=DIR,DIR is one encoder trained several times."
        )
    for spec in specs:
        name, _, folders = spec.rpartition("=")
        folders = folders.split(",") if name else [folders]
        for folder in folders:
            found = _read(folder)
            results.append(found)
            encoders = found["encoders"][:1] if name else found["encoders"]
            for encoder in encoders:
                _add(columns, name, folder, encoder, found)
    suites = {found["settings"]["suite"] for found in results}
    if len(suites) != 1:
        raise ValueError(f"Results must be of one suite. Got: {sorted(suites)}")
    tasks, left_out = _common_tasks(results)
    return Comparison(
        list(columns.values()), results[0]["settings"], tasks, left_out, results
    )


def _read(folder):
    file = pathlib.Path(folder) / "results.json"
    found = files_lib.read_json(file)
    if found is None:
        raise FileNotFoundError(
            "Results must be in a folder that vivi-evaluate wrote, with"
            f" results.json. Got: {folder}"
        )
    if not _are_results(found):
        raise ValueError(
            f"{file} must hold the results of an evaluation. Got: a file that"
            " lacks what vivi-evaluate writes"
        )
    return {**found, "folder": str(folder)}


def _are_results(found):
    """Whether loaded JSON has all that a comparison needs."""
    kinds = {"encoders": list, "settings": dict, "tasks": dict, "skipped": dict}
    return (
        isinstance(found, dict)
        and all(isinstance(found.get(k), kind) for k, kind in kinds.items())
        and scores.are_rows(found.get("rows"))
        and "suite" in found["settings"]
        and bool(found["encoders"])
        and all(
            isinstance(encoder, dict) and {"name", "sha256"} <= {*encoder}
            for encoder in found["encoders"]
        )
    )


def _add(columns, name, folder, encoder, found):
    key = name if name else encoder["name"]
    rows = [r for r in found["rows"] if r["encoder"] == encoder["name"]]
    digest = encoder["sha256"]
    settings = {k: found["settings"].get(k) for k in SETTINGS}
    departures = scores.departures(found["settings"], found["tasks"], encoder)
    for column in columns.values():
        if column.name != key and not column.name.startswith(f"{key} ("):
            continue
        for place, known in enumerate(column.digests):
            if (known, column.settings[place]) == (digest, settings):
                # The encoder is in several folders: add only missing rows.
                run = column.runs[place]
                scored = {(r["task"], r["protocol"]) for r in run}
                run += [
                    r for r in rows if (r["task"], r["protocol"]) not in scored
                ]
                column.folders[place].append(str(folder))
                column.add_departures(departures)
                return
    if name and digest in columns.get(key, Column(key)).digests:
        raise ValueError(
            f"Modules of {key!r} must be scored alike. Got: {folder}, which"
            f" scored one of them again, with {settings}"
        )
    if key in columns and not name:
        key = f"{key} ({pathlib.Path(folder).name})"
        if key in columns:
            raise ValueError(
                f"Two different encoders are called {key!r}: name them"
                " (NAME=DIR)."
            )
    column = columns.setdefault(key, Column(key))
    column.runs.append(rows)
    column.digests.append(digest)
    column.settings.append(settings)
    column.folders.append([str(folder)])
    column.add_departures(departures)


def _common_tasks(results):
    tasks, left_out = {}, []
    for found in results:
        known = found["tasks"] or {  # robustness suites store no tasks
            row["task"]: {"group": row["group"]} for row in found["rows"]
        }
        for task, notes in known.items():
            kept = tasks.setdefault(task, notes)
            if kept.get("fingerprint") != notes.get("fingerprint"):
                left_out.append(
                    f"{task}: its images in {found['folder']} differ"
                )
    for line in left_out:
        tasks.pop(line.partition(":")[0], None)
    for found in results:
        left_out += [f"{k}: {v}" for k, v in found["skipped"].items()]
        left_out += [
            f"{r['task']}, {r['encoder']}, {r['protocol']}: {r['reason']}"
            for r in found.get("not_run", [])
        ]
        settings = found["settings"]
        for key in (*SETTINGS, "seeds"):
            if settings.get(key) != results[0]["settings"].get(key):
                left_out.append(
                    f"note: {found['folder']} has {key} {settings.get(key)},"
                    f" the first {results[0]['settings'].get(key)}"
                )
    return tasks, scores.unique(left_out)


def mean_difference(column, reference, tasks, protocol):
    """Paired difference of two columns, averaged over common tasks.

    Returns: the dict of `difference` plus "tasks", or None if the columns
        share no task. Pairs are modules in order, or seeds. If only one column
        has several modules, each of them is compared with the mean (for
        fine-tuning, the median) of the other column's seeds.
    """
    pairs = {}
    shared = [
        task
        for task in tasks
        if column.cell(task, protocol) and reference.cell(task, protocol)
    ]
    for task in shared:
        ours = column.units(task, protocol)
        theirs = reference.units(task, protocol)
        if len(column.runs) > 1 and len(reference.runs) == 1:
            middle = scores.aggregate_runs(list(theirs.values()), protocol)
            theirs = dict.fromkeys(ours, middle)
        elif len(reference.runs) > 1 and len(column.runs) == 1:
            middle = scores.aggregate_runs(list(ours.values()), protocol)
            ours = dict.fromkeys(theirs, middle)
        for unit in ours.keys() & theirs.keys():
            pairs.setdefault(unit, []).append((ours[unit], theirs[unit]))
    whole = [p for p in pairs.values() if len(p) == len(shared)]
    if not whole:
        return None
    means = np.asarray(whole).mean(axis=1)  # [units, 2]
    found = difference(means[:, 0], means[:, 1], CONFIDENCE)
    return {**found, "tasks": len(shared)}


def find_maps(comparison, kind):
    """Task -> (thumbnails, labels, column name -> [N, 2]) of saved maps."""
    found = {}
    for column in comparison.columns:
        files = [
            file
            for folder in column.folders[0]
            for file in sorted(
                (pathlib.Path(folder) / "maps" / kind).glob("*.npz")
            )
        ]
        for file in files:
            arrays = maps.load(file)
            own = [k for k in arrays if k.endswith(f"|{column.digests[0]}")]
            if column.digests[0] is None:
                own = [k for k in arrays if k.startswith(f"{column.name}|")]
            if file.stem in comparison.tasks and own:
                entry = found.setdefault(
                    file.stem, (arrays["thumbnails"], arrays["labels"], {})
                )
                entry[2][column.name] = arrays[own[0]]
    return found


def published_rows(comparison):
    """Published rows if a column has the published protocol, else none."""
    is_whole = {*comparison.tasks} == {*vtab_tasks.SOURCES}
    if not is_whole or finetune.PROTOCOL not in comparison.protocols:
        return ()
    if all(comparison.departures.values()):
        return ()
    return scores.VTAB_1K


def _values(rows, task, protocol):
    return scores.accuracies(
        [{**row, "encoder": None} for row in rows], None, task, protocol
    )
