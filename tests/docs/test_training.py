"""docs/training.md: its programs run, and it names every flag."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import data_helpers
import pytest
from absl import flags

from vivi_keras.training import pretrain
from vivi_keras.training.configs import get_config

TEXT = (
    pathlib.Path(__file__).parents[2].joinpath("docs", "training.md")
).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every program of the page, beside a data set where they expect it."""
    folder = tmp_path_factory.mktemp("doc")
    for text in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", text)[1]
        (folder / name).write_text(text, encoding="utf-8")
    data_helpers.write_dataset(
        folder / ".cache" / "demo" / "dataset",
        [data_helpers.video_example(v, [3] * 5) for v in range(16)],
    )
    return folder


def start(folder, program, **environment):
    return subprocess.Popen(
        [sys.executable, program],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    printed, _ = process.communicate(timeout=400)
    return process.returncode, printed


def test_resume_goes_on_to_the_end(folder):
    status, printed = finish(start(folder, "resume.py"))
    assert status == 0, printed
    saved = sorted(p.name for p in (folder / "run/checkpoints").iterdir())
    assert saved == ["step_00000004", "step_00000008", "step_00000010"]


@pytest.mark.slow  # a process for each program, and TensorFlow in each
@pytest.mark.parametrize("program", ["train.py", "mirrored.py", "watch.py"])
def test_program_runs(folder, program):
    status, printed = finish(start(folder, program))
    assert status == 0, printed
    if program == "watch.py":
        assert list((folder / "run/profile").rglob("*.xplane.pb"))
        assert (folder / "run/projector/sprite.png").stat().st_size > 1000
    else:
        assert "epoch 2/2: loss" in printed and "video_info_nce_loss" in printed


@pytest.mark.slow  # the same
def test_two_workers_run(folder):
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("localhost", 0))
        ports = [each.getsockname()[1] for each in (first, second)]
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    tasks = [{"type": "worker", "index": index} for index in range(2)]
    workers = [
        start(
            folder,
            "worker.py",
            TF_CONFIG=json.dumps({"cluster": cluster, "task": task}),
        )
        for task in tasks
    ]
    for status, printed in map(finish, workers):
        assert status == 0, printed
        assert "epoch 2/2: loss" in printed


@pytest.mark.slow  # the same
@pytest.mark.skipif(
    pathlib.Path("/dev/accel0").exists() or "TPU_NAME" in os.environ,
    reason="there is a TPU",
)
def test_tpu_program_names_what_is_missing(folder):
    status, printed = finish(start(folder, "tpu.py"))
    assert status == 1
    assert "strategy=tpu found no TPU" in printed


def test_every_flag_is_in_the_table():
    module = pretrain.__name__
    defined = {f.name for f in flags.FLAGS.get_flags_for_module(module)}
    told = set(re.findall(r"^\| `--(\w+)` \|", TEXT, re.MULTILINE))
    both = {"config", "workdir"}  # other scripts define them, too
    assert defined - both == told - both
    assert {"config", "workdir", "strategy"} <= told


def test_every_key_it_names_is_in_the_config():
    config = get_config("vivi_ex4_demo")
    rows = re.findall(r"^\| (`(?:\w+\.\w+)`.*?) \|", TEXT, re.MULTILINE)
    keys = [key for row in rows for key in re.findall(r"`(\w+)\.(\w+)`", row)]
    assert len(keys) > 10
    for section, key in keys:
        assert key in config[section]
