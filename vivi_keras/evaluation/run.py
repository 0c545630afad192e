"""Runs an evaluation and saves each finished part."""

import datetime
import hashlib
import json
import pathlib
import platform
import sys
import time

from absl import logging

from vivi_keras import commands, files
from vivi_keras.evaluation.protocols import corruptions, finetune, frozen
from vivi_keras.evaluation.reports import scores
from vivi_keras.evaluation.settings import CORRUPTIONS
from vivi_keras.features import CannotScore
from vivi_keras.features.finetune import FineTuner, Sweep, Untrainable


class Ledger(dict):
    """Finished parts of a long protocol, saved to a file after each one.

    Args:
        file: JSON file, or None to keep them only in memory.
    """

    def __init__(self, file=None):
        super().__init__()
        self._file = file
        kept = None if file is None else _read_if_valid(file, _is_ledger)
        if kept is not None:
            self.update(kept)

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        if self._file is not None:
            files.write_json(self._file, dict(self))


class Run:
    """Collects the rows of one evaluation.

    Args:
        encoders: list of Encoder and RawPixels.
        cache: FeatureCache.
        settings: dict: "protocols", "image_size", "seeds", "max_test",
            "max_corrupted" and, for fine-tuning, "sweep" (a dict).
        output: folder for finished parts and results, or None.
        show: callable that prints one line.
        progress: bool, whether to show progress bars with the time left.
    """

    def __init__(self, encoders, cache, settings, output, show, progress=False):
        self.encoders, self.cache, self.settings = encoders, cache, settings
        self.output = None if output is None else pathlib.Path(output)
        self.show, self.progress = show, progress
        self.rows, self.skipped, self.task_notes = [], {}, {}
        self.not_run = []
        self.start = time.time()
        self._tuners, self._shown = {}, set()
        for encoder in encoders:
            encoder.size_for(settings["image_size"])  # adds notes on the size
            self._show_notes(encoder)

    def skip(self, name, reason):
        """Records a task that did not run, or did not finish."""
        self.skipped[name] = reason
        self.task_notes.pop(name, None)
        self.rows = [row for row in self.rows if row["task"] != name]
        self.show(f"skipped {name}: {reason}")

    def _show_notes(self, encoder):
        """Shows each note on an encoder once."""
        for note in encoder.notes:
            if (encoder.name, note) not in self._shown:
                self._shown.add((encoder.name, note))
                self.show(f"note: {encoder.name}: {note}")

    def score_task(self, task):
        """Runs every encoder on one task, or reads an earlier run's results."""
        self.task_notes[task.name] = {
            "group": task.group,
            "num_classes": task.num_classes,
            "num_pool": task.num_examples("train"),
            "num_test": task.num_examples("test"),
            "licence": task.licence,
            "fingerprint": task.fingerprint,
            "notes": list(task.notes),
        }
        for encoder in self.encoders:
            for protocol in self.settings["protocols"]:
                self._part(encoder, task, protocol)

    def _part(self, encoder, task, protocol):
        """Rows of one encoder, task and protocol."""
        file = self._file(encoder, task, protocol)
        title = f"{task.name}: {encoder.name}, {protocol}"
        kept = None if file is None else _read_if_valid(file, _is_part)
        if kept is not None:
            # The same weights may have another name this time.
            self.rows += [{**r, "encoder": encoder.name} for r in kept]
            self.show(f"{title} taken from {file}")
            for note in (n for row in kept for n in row.get("notes", ())):
                encoder.note(note)
            self._show_notes(encoder)
            return
        start, known = time.time(), len(encoder.notes)
        try:
            rows = self._rows(encoder, task, protocol, file)
        except (
            Untrainable,
            FloatingPointError,
            CannotScore,
        ) as reason:
            self.not_run.append(
                {
                    "encoder": encoder.name,
                    "task": task.name,
                    "protocol": protocol,
                    "reason": str(reason),
                }
            )
            self.show(f"{title} not run: {reason}")
            return
        seconds = time.time() - start
        for row in rows:
            row["part_seconds"] = round(seconds, 2)
            if encoder.notes[known:]:
                row["notes"] = encoder.notes[known:]
        self.rows += rows
        if file is not None:
            files.write_json(file, rows)
        self.show(f"{title} in {seconds:.1f} s")
        self._show_notes(encoder)

    def _rows(self, encoder, task, protocol, file):
        if protocol == finetune.PROTOCOL:
            results = self._fine_tuned(encoder, task, file)
        elif protocol == CORRUPTIONS:
            results = self._corrupted(encoder, task)
        else:
            results = self._frozen(encoder, task, protocol)
        base = {
            "encoder": encoder.name,
            "task": task.name,
            "group": task.group,
            "protocol": protocol,
        }
        return [{**base, **result} for result in results]

    def _seeds(self, task, protocol):
        """The seeds to run: one if neither task nor protocol draws images."""
        if task.has_draws or protocol == "few_shot":
            return self.settings["seeds"]
        return self.settings["seeds"][:1]

    def _features(self, encoder, task, limit=None):
        size = self.settings["image_size"]
        wanted = task.num_examples("train") if limit is None else limit
        total = wanted + task.num_examples("test")
        with self._bar(total, f"{task.name}: {encoder.name}", "image") as bar:
            pool = self.cache.features(
                encoder, task, "train", size, limit, progress=bar.update
            )
            test = self.cache.features(
                encoder, task, "test", size, progress=bar.update
            )
        return pool, test

    def _frozen(self, encoder, task, protocol):
        seeds = self._seeds(task, protocol)
        # Only seeds other than 0 and few_shot use images beyond the first
        # 1,000.
        limit = 1000 if max(seeds) == 0 and protocol != "few_shot" else None
        pool, test = self._features(encoder, task, limit)
        results = []
        for seed in seeds:
            found = frozen.run_frozen([protocol], task, *pool, *test, seed)[
                protocol
            ]
            if protocol != "few_shot":
                results.append({"seed": seed, **found})
                continue
            for count, values in found.items():
                name = f"few_shot_{count}"
                results.append({"seed": seed, **values, "protocol": name})
        return results

    def _fine_tuned(self, encoder, task, file):
        if encoder.digest not in self._tuners:
            self._tuners[encoder.digest] = FineTuner(encoder)
        sweep = Sweep(
            **{
                k: tuple(v) if isinstance(v, list) else v
                for k, v in self.settings["sweep"].items()
            }
        )
        ledger = None if file is None else file.with_suffix(".part.json")
        total = sum(s for _, s in sweep.settings)
        total += sweep.runs * max(sweep.steps)
        with self._bar(total, f"{task.name}: {encoder.name}", "step") as bar:
            results = finetune.run(
                self._tuners[encoder.digest],
                task,
                self.settings["image_size"],
                sweep,
                Ledger(ledger),
                on_step=bar.update,
            )
        if ledger is not None:
            ledger.unlink(missing_ok=True)
        return results

    def _corrupted(self, encoder, task):
        pool, _ = self._features(encoder, task, 1000)
        limit = self.settings["max_corrupted"]
        total = len(corruptions.CORRUPTIONS) * len(corruptions.SEVERITIES)
        with self._bar(total, f"{task.name}: {encoder.name}", "set") as bar:
            result = corruptions.run(
                encoder,
                task,
                *pool,
                image_size=self.settings["image_size"],
                limit=limit,
                on_set=bar.update,
            )
        return [{"seed": 0, **result}]

    def _bar(self, total, title, unit):
        return commands.progress_bar(
            total=total,
            desc=title,
            unit=unit,
            leave=False,
            disable=not self.progress,
        )

    def finish(self, more=None):
        """Writes, shows and returns the results.

        Args:
            more: dict of further entries for the results.
        """
        results = {
            "rows": self.rows,
            "skipped": self.skipped,
            "not_run": self.not_run,
            "tasks": self.task_notes,
            "settings": self.settings,
            "encoders": [e.describe() for e in self.encoders],
            "command": sys.argv,
            "versions": versions(),
            "seconds": time.time() - self.start,
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(
                timespec="seconds"
            ),
            **({} if more is None else more),
        }
        suite = self.settings["suite"]
        text = "no task could run"
        if self.rows:
            departures = {
                e["name"]: scores.departures(self.settings, self.task_notes, e)
                for e in results["encoders"]
            }
            text = scores.table(self.rows, suite, departures)
        results["table"] = text
        self.show("\n" + text)
        if self.output is not None:
            files.write_json(self.output / "results.json", results)
            (self.output / "table.txt").write_text(text + "\n", "utf-8")
        return results

    def _file(self, encoder, task, protocol):
        if self.output is None:
            return None
        ignored = {"protocols"}
        ignored |= {"sweep"} if protocol != finetune.PROTOCOL else {"seeds"}
        if protocol != CORRUPTIONS:
            ignored.add("max_corrupted")
        ignored.add("resize")  # part of the task's fingerprint
        settings = {k: v for k, v in self.settings.items() if k not in ignored}
        key = [encoder.digest, task.fingerprint, protocol, settings]
        if protocol == finetune.PROTOCOL:
            key.append(finetune.VERSION)
        key = json.dumps(key, sort_keys=True)
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return self.output / "tasks" / f"{task.name}-{digest}.json"


def _read_if_valid(file, is_whole):
    """Reads an earlier run's file; None if it is missing or damaged."""
    try:
        found = files.read_json(file)
    except ValueError as error:
        logging.warning("%s; it is computed again", error)
        return None
    if found is None or is_whole(found):
        return found
    logging.warning("%s is incomplete; it is computed again", file)
    return None


def _is_part(found):
    return bool(found) and scores.are_rows(found)


def _is_ledger(found):
    return isinstance(found, dict) and all(
        isinstance(value, float | int) for value in found.values()
    )


def versions():
    """Versions of the packages that the numbers depend on."""
    import keras
    import sklearn
    import tensorflow as tf
    import tensorflow_datasets as tfds

    import vivi_keras

    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "tensorflow": tf.__version__,
        "tensorflow-datasets": tfds.__version__,
        "keras": keras.__version__,
        "scikit-learn": sklearn.__version__,
        "vivi-keras": vivi_keras.__version__,
    }
