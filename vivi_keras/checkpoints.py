"""A work directory: its config, its checkpoints, what may go on from it."""

import json
import pathlib

import ml_collections

CONFIG_FILE = "config.json"


class CheckpointManager:
    """Saves and restores a built ViviModel with its optimizer.

    Args:
        model: built and compiled ViviModel.
        workdir: folder of the run.
        keep: number of newest checkpoints that are kept.
    """

    def __init__(self, model, workdir, keep=3):
        import tensorflow as tf

        self.model = model
        self.folder = pathlib.Path(workdir) / "checkpoints"
        checkpoint = tf.train.Checkpoint(
            variables=[v.value for v in model.variables],
            optimizer=[v.value for v in model.optimizer.variables],
        )
        self.checkpoint = checkpoint
        self.manager = tf.train.CheckpointManager(
            checkpoint, str(self.folder), max_to_keep=keep
        )

    def save(self) -> str:
        """Writes a checkpoint of the model's step; returns its path."""
        return self.manager.save(checkpoint_number=int(self.model.step))

    def restore(self) -> int | None:
        """Restores the last checkpoint; returns its step, or None."""
        path = self.manager.latest_checkpoint
        if path is None:
            return None
        self.checkpoint.restore(path).assert_consumed()
        self.model.resumed = True
        return int(self.model.step)


def claim_workdir(workdir, config, fingerprint) -> None:
    """Writes the config into a new work directory, or compares it.

    Raises: ValueError: the work directory belongs to another config or to
        other data.
    """
    folder = pathlib.Path(workdir)
    file = folder / CONFIG_FILE
    mine = json.loads(config.to_json())
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        record = {"config": mine, "data_fingerprint": fingerprint}
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return
    record = json.loads(file.read_text(encoding="utf-8"))
    changes = [*differences(record["config"], mine)]
    if changes:
        raise ValueError(
            f"{workdir} holds a run with another config:\n  "
            + "\n  ".join(changes)
            + "\nUse another --workdir, or the same settings."
        )
    if record["data_fingerprint"] != fingerprint:
        raise ValueError(
            f"The data set {config.data.dataset} changed since the run in"
            f" {workdir} began: expected {record['data_fingerprint']}, got"
            f" {fingerprint}."
        )


def differences(there, here, prefix=""):
    """Yields one line for each value in which two nested dicts differ."""
    for key in sorted({*there, *here}):
        name = f"{prefix}{key}"
        a, b = there.get(key, "(none)"), here.get(key, "(none)")
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{name}.")
        elif a != b:
            yield f"{name}: {a!r} there, {b!r} here"


def read_config(workdir) -> ml_collections.ConfigDict:
    """The config a run was started with.

    Raises: FileNotFoundError: the folder holds no run.
    """
    return ml_collections.ConfigDict(_read(workdir)["config"])


def read_fingerprint(workdir) -> str:
    """What identifies the data a run was started with."""
    return _read(workdir)["data_fingerprint"]


def _read(workdir):
    file = pathlib.Path(workdir) / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"Expected the folder of a vivi-pretrain run; {file} is missing."
        )
    return json.loads(file.read_text(encoding="utf-8"))
