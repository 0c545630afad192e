"""docs/encoders.md: each of its programs runs, in a process of its own."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"## (.*?)\n.*?```python\n(.*?)```", TEXT, re.DOTALL)


def test_there_is_a_program_for_each_way_in():
    assert [title for title, _ in PROGRAMS] == [
        "Keras 3",
        "tf_keras",
        "TensorFlow alone",
        "Inference inside a Keras 3 model",
        "Labels",
    ]


@pytest.mark.parametrize("title, program", PROGRAMS)
def test_the_program_runs(title, program, tmp_path):
    (tmp_path / "hub_modules").symlink_to(ROOT / "hub_modules")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
