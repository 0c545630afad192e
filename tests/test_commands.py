"""The console scripts say what they do."""

import importlib.metadata
import re
import subprocess
import sys

import pytest

from vivi_keras import hub_modules

START = "import sys; sys.argv = {0}; from {1} import run; run()"
SCRIPTS = {
    "vivi-prepare": ("vivi_keras.training.prepare", "--videos"),
    "vivi-pretrain": ("vivi_keras.training.pretrain", "--workdir"),
    "vivi-evaluate": ("vivi_keras.training.evaluate", "--tasks"),
    "vivi-export": ("vivi_keras.export.main", "--format"),
    "vivi-verify": ("vivi_keras.export.verify", "--json"),
}


def run_as(name, *arguments):
    """What a console script prints, and its exit status."""
    module, _ = SCRIPTS[name]
    done = subprocess.run(
        [sys.executable, "-c", START.format([name, *arguments], module)],
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr, done.returncode


def test_every_script_is_here():
    found = {
        entry.name
        for entry in importlib.metadata.entry_points(group="console_scripts")
        if entry.value.startswith("vivi_keras.")
    }
    assert found == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_what_it_does_and_its_flags(name):
    _, flag = SCRIPTS[name]
    shown, _ = run_as(name, "--help")
    assert shown.startswith(f"{name}: "), shown
    assert f"\n  {flag}: " in shown
    assert "--stderrthreshold" not in shown  # other modules' flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--module=nowhere"], "evaluate: Expected a SavedModel folder"),
        (
            ["--module=keras.applications.No"],
            "evaluate: Expected one of .*; got No",
        ),
        (
            ["--module={shipped}", "--output_name=a"],
            "evaluate: Module .* has one output; got 'a'",
        ),
        (["--module={shipped}", "--suite=vtab"], "no task could run"),
    ],
)
def test_evaluate_fails_in_one_line(arguments, message, tmp_path):
    shipped = hub_modules.__path__[0] + "/vivi-r14w025-film/1"
    shown, status = run_as(
        "vivi-evaluate",
        *(word.format(shipped=shipped) for word in arguments),
        f"--output={tmp_path / 'scores'}",
        f"--data_dir={tmp_path}",
        f"--cache_dir={tmp_path}",
    )
    assert status == 1
    assert re.search(message, shown), shown
    assert "Traceback" not in shown
