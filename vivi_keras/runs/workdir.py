"""Checks that a work directory is writable and belongs to this run."""

import json
import os
import pathlib

import ml_collections

from vivi_keras import files
from vivi_keras.runs.checkpoints import saved_steps

CONFIG_FILE = "config.json"
_RECORD = ("data_fingerprint", "start")
# Keys that were added to configs after the first runs, with their defaults.
_NEW_KEYS = {
    "data": {
        "colour_strength": 1.0,
        "grey": 0.0,
        "blur": 0.0,
        "min_gap_seconds": 0.0,
        "max_gap_seconds": 0.0,
        "duplicates": "",
    },
    "model": {"encoder": "resnet50v2", "weights": "auto", "pool": False},
    "adapt": {
        "warmup_head_steps": 0,
        "trainable": "all",
        "layer_decay": 1.0,
        "freeze_statistics": False,
        "keep_close": 0.0,
        "start_shares": [],
    },
}
_NEW_KEYS_OF_EXEMPLARS = {"sigreg_weight": 0.05, "num_directions": 256}


def check_writable(workdir) -> None:
    """Checks early, without making a folder, that a run can write here.

    Raises: ValueError: it is not a folder, or cannot be written or made.
    """
    for place in (pathlib.Path(workdir), pathlib.Path(workdir, "checkpoints")):
        place = place.absolute()
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise ValueError(
                f"The work directory must be a folder. Got: {place}, which is a"
                " file"
            )
        if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
            raise ValueError(
                "The work directory must be one that can be written. Got:"
                f" {place}, which may not be written"
            )


def claim_workdir(
    workdir, config, fingerprint, allow_new_data=False, start=None
) -> None:
    """Writes the config into a new work directory, or checks the one there.

    The data set may be in another place, but must have the same content.

    Args:
        workdir: folder of the run.
        config: ConfigDict of the run.
        fingerprint: str, hash of the data set.
        allow_new_data: accept other data and record their fingerprint.
        start: dict, see `read_start`, or None.
    Raises: ValueError: the work directory belongs to another config or to
        other data, or has checkpoints but no config.
    """
    folder = pathlib.Path(workdir)
    mine = {
        "config": json.loads(config.to_json()),
        "data_fingerprint": fingerprint,
        "start": start,
    }
    if not (folder / CONFIG_FILE).exists():
        steps = saved_steps(folder)
        if steps:
            raise ValueError(
                f"{workdir} must have {CONFIG_FILE} beside the checkpoints,"
                f" which go to step {steps[-1]}; it is missing. Put it back, or"
                " use another work directory."
            )
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / CONFIG_FILE, mine, 2, sort_keys=False)
        return
    record = _read(folder)
    record["config"]["data"]["dataset"] = mine["config"]["data"]["dataset"]
    changes = [*differences(record["config"], mine["config"])]
    if changes:
        raise ValueError(
            f"{workdir} holds a run with another config:\n  "
            + "\n  ".join(changes)
            + "\nUse another --workdir, or the same settings."
        )
    if record["data_fingerprint"] != fingerprint and not allow_new_data:
        raise ValueError(
            f"The data set must be the one that the run in {workdir} began"
            f" with, of fingerprint {record['data_fingerprint'][:12]}... Got:"
            f" {config.data.dataset} of fingerprint {fingerprint[:12]}... Use"
            " --allow_new_data to go on with it."
        )
    files.write_json(folder / CONFIG_FILE, mine, 2, sort_keys=False)


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
    """Reads the config that a run was started with.

    Raises: FileNotFoundError: the folder has no run.
    """
    return ml_collections.ConfigDict(_read(workdir)["config"])


def read_start(workdir) -> dict | None:
    """Reads which network a run's encoder is, and where it comes from.

    Returns: the dict of `build.find_start` when the run began, or None for
        a folder without a run or a run that did not record it.
    """
    return _read(workdir)["start"] if has_config(workdir) else None


def has_config(workdir) -> bool:
    """Whether a folder has the config of a run."""
    return (pathlib.Path(workdir) / CONFIG_FILE).is_file()


def read_fingerprint(workdir) -> str:
    """Reads the fingerprint of the data that a run was started with."""
    return _read(workdir)["data_fingerprint"]


def _read(workdir):
    file = pathlib.Path(workdir) / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{workdir} must be the folder of a vivi-pretrain run. Got: one"
            f" where {file} is missing"
        )
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        config = record["config"]
        for group, defaults in _NEW_KEYS.items():
            config[group] = {**defaults, **config.get(group, {})}
        for level in config["objective"].values():
            if "margin" in level:
                level |= {**_NEW_KEYS_OF_EXEMPLARS, **level}
        record.setdefault("start", None)
        return {key: record[key] for key in ("config", *_RECORD)}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} must be as vivi-pretrain wrote it. Got: a damaged file:"
            f" {error!r}"
        ) from None
