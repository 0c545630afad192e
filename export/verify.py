"""vivi-verify: checks that a module follows the image module conventions.

A SavedModel is a program, and this command runs it: check only modules of
publishers you trust.

The exit status is 0 if no check fails, 1 if at least one fails (MISS), and 2 if
nothing was checked: a wrong flag, no such module, or another error.

Example:
  vivi-verify module
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

from vivi_keras import commands, files
from vivi_keras.models import registry

CHECKS_FILE = pathlib.Path(__file__).with_name("checks.py")
TIMEOUT_SECONDS = 1800
_JSON = flags.DEFINE_string("json", None, "File for the results as JSON.")


def verify(path):
    """Checks a SavedModel in a clean process without vivi_keras.

    Args:
        path: folder of a SavedModel from any publisher.
    Returns: list of (check, "pass", "MISS" or "n/a", text).
    Raises: FileNotFoundError, NotADirectoryError: there is no SavedModel.
    """
    folder = pathlib.Path(path).absolute()
    if not folder.is_dir():
        raise NotADirectoryError(
            f"module must be the folder of a SavedModel. Got: {str(path)!r}"
        )
    if not (folder / "saved_model.pb").is_file():
        raise FileNotFoundError(
            f"module must be the folder of a SavedModel. Got: {str(path)!r},"
            " which holds no saved_model.pb"
        )
    with tempfile.TemporaryDirectory() as aside:
        results = pathlib.Path(aside) / "results.json"
        # -I: neither PYTHONPATH nor our folders are on the import path.
        try:
            done = subprocess.run(
                [
                    *(sys.executable, "-I", str(CHECKS_FILE)),
                    *(files.tensorflow_path(folder), results),
                ],
                cwd=aside,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            ended = f"no end after {TIMEOUT_SECONDS} seconds"
            return [("loads", "MISS", ended)]
        if done.returncode or not results.is_file():
            text = done.stderr.strip().splitlines()[-1:] or ["no message"]
            ended = f"the process ended with {done.returncode}: {text[0]}"
            return [("loads", "MISS", ended)]
        rows = json.loads(results.read_text(encoding="utf-8"))
    return [*(tuple(row) for row in rows), content_row(folder)]


def content_row(folder):
    """Checks that the files match the content hash in the metadata."""
    from vivi_keras.export import metadata

    name = "content hash"
    try:
        stated = metadata.read_metadata(folder).get("content_sha256")
    except FileNotFoundError:
        return (name, "n/a", f"no {metadata.METADATA_NAME}")
    except ValueError as error:
        return (name, "MISS", f"{metadata.METADATA_NAME}: {error}")
    found = files.tree_sha256(folder, [metadata.METADATA_NAME])
    if stated != found:
        return (name, "MISS", f"metadata says {stated}, the files have {found}")
    return (name, "pass", found[:16])


def table(rows):
    """Formats the rows as text, one line per check and a line of counts."""
    width = max(len(name) for name, _, _ in rows)
    lines = [
        f"{name:<{width}}  {result:<4}  {text}".rstrip()
        for name, result, text in rows
    ]
    missed = sum(result == "MISS" for _, result, _ in rows)
    passed = sum(result == "pass" for _, result, _ in rows)
    lines.append(f"{passed} passed, {missed} missed")
    return "\n".join(lines)


def main(argv):
    if len(argv) != 2:
        raise app.UsageError(
            "Arguments must be one module (folder, name or archive). Got:"
            f" {argv[1:]}"
        )
    rows = verify(registry.find(argv[1]))
    print(table(rows))
    if _JSON.value is not None:
        pathlib.Path(_JSON.value).write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(result == "MISS" for _, result, _ in rows))


def run():
    """The console script vivi-verify."""
    commands.run("vivi-verify", main, error_status=2)


if __name__ == "__main__":
    run()
