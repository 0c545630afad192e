"""The console scripts say what they do."""

import importlib.metadata
import subprocess
import sys

import pytest

START = "import sys; sys.argv = ['{0}', '--help']; from {1} import run; run()"
SCRIPTS = {
    "vivi-prepare": ("vivi_keras.training.prepare", "--videos"),
    "vivi-pretrain": ("vivi_keras.training.pretrain", "--workdir"),
    "vivi-evaluate": ("vivi_keras.training.evaluate", "--tasks"),
    "vivi-export": ("vivi_keras.export.main", "--format"),
    "vivi-verify": ("vivi_keras.export.verify", "--json"),
}


def test_every_script_is_here():
    found = {
        entry.name
        for entry in importlib.metadata.entry_points(group="console_scripts")
        if entry.value.startswith("vivi_keras.")
    }
    assert found == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_what_it_does_and_its_flags(name):
    module, flag = SCRIPTS[name]
    done = subprocess.run(
        [sys.executable, "-c", START.format(name, module)],
        capture_output=True,
        text=True,
    )
    shown = done.stdout + done.stderr
    assert shown.startswith(f"{name}: "), shown
    assert f"\n  {flag}: " in shown
    assert "--stderrthreshold" not in shown  # other modules' flags
