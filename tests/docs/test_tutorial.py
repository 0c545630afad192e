"""docs/tutorial.md: its commands run in order, and print what it shows."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "tutorial.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def steps():
    """Yields (file name, program) and (command, what it prints) in order."""
    for kind, text in BLOCK.findall(PAGE):
        if kind == "python":
            yield "file", re.match(r"# (\w+\.py)\n", text)[1], text
        elif kind == "console":
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command = re.match(r"(?:.*\\\n)*.*\n", part)[0]
                yield "command", command, part[len(command) :]


def masked(text):
    """Its lines, with numbers replaced and spaces joined."""
    text = re.sub(r"\d+(\.\d+)?", "0", text)
    return [
        " ".join(line.split()) for line in text.splitlines() if line.strip()
    ]


@pytest.mark.slow  # a process with TensorFlow for each of ten commands
def test_the_commands_print_what_is_shown(tmp_path):
    environment = {
        **os.environ,
        "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    num_commands = 0
    for kind, name, text in steps():
        if kind == "file":
            (tmp_path / name).write_text(text, encoding="utf-8")
            continue
        done = subprocess.run(
            ["bash", "-euc", name],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{name}{done.stderr[-2000:]}"
        printed = masked(done.stdout)
        for line in masked(text):
            if line != "...":
                assert line in printed, (name, line, printed)
        num_commands += 1
    assert num_commands == 8
    for made in (
        "hits.html",
        "classes/timeline.html",
        "classifier/saved_model.pb",
    ):
        assert (tmp_path / made).is_file()
