"""The console scripts say what they do."""

import dataclasses
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys

import pytest
from absl import flags

from vivi_keras import commands, hub_modules, training, video
from vivi_keras.prepare import watchdog
from vivi_keras.runs import run
from vivi_keras.training import prepare, pretrain
from vivi_keras.training.configs import get_config

START = "import sys; sys.argv = {0}; from {1} import run; run()"
SCRIPTS = {
    "vivi run": ("vivi_keras.training.run", "--budget"),
    "vivi-prepare": ("vivi_keras.training.prepare", "--videos"),
    "vivi-pretrain": ("vivi_keras.training.pretrain", "--workdir"),
    "vivi-adapt": ("vivi_keras.training.adapt", "--try"),
    "vivi-evaluate": ("vivi_keras.training.evaluate", "--tasks"),
    "vivi-export": ("vivi_keras.export.main", "--format"),
    "vivi-verify": ("vivi_keras.export.verify", "--json"),
    "vivi-embed": ("vivi_keras.training.embed", "--batch_size"),
    "vivi-search": ("vivi_keras.training.search", "--index"),
    "vivi-label": ("vivi_keras.training.label", "--labels"),
}
MODULES = {
    "vivi_keras.training.demo": "--walks",
    "vivi_keras.training.film": "--film",
    "vivi_keras.export.publish": "--metrics",
}
FIRST_SCREEN = 24  # lines of a terminal


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
    # `vivi` starts the others: `vivi prepare` is `vivi-prepare`.
    assert found == {name.replace(" run", "") for name in SCRIPTS}
    assert {f"vivi-{name}" for name in training.COMMANDS} == {
        name.replace(" ", "-") for name in SCRIPTS
    }


def run_vivi(*arguments):
    return subprocess.run(
        [sys.executable, "-c", "from vivi_keras.training import main; main()"]
        + list(arguments),
        capture_output=True,
        text=True,
    )


def test_vivi_starts_the_others():
    done = run_vivi()
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= FIRST_SCREEN
    for name in training.COMMANDS:
        assert f"  {name} " in done.stdout
    done = run_vivi("search", "--help")
    assert done.returncode == 0 and "--index" in done.stdout
    done = run_vivi("serch")
    assert done.returncode == 1 and "Did you mean 'search'?" in done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_what_it_does_and_its_flags(name):
    _, flag = SCRIPTS[name]
    shown, status = run_as(name, "--help")
    assert status == 0
    assert shown.startswith(f"{name}: "), shown
    example = f"\n  {name} -" if name != "vivi-verify" else "\n  vivi-verify m"
    assert example in "\n".join(shown.splitlines()[:FIRST_SCREEN])
    assert f"\n  {flag}: " in shown
    assert "--stderrthreshold" not in shown  # other modules' flags


@pytest.mark.parametrize("name", MODULES)
def test_help_of_a_module(name):
    done = subprocess.run(
        [sys.executable, "-m", name, "--help"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    first = "\n".join(done.stdout.splitlines()[:FIRST_SCREEN])
    assert f"python -m {name} " in first
    assert f"\n  {MODULES[name]}: " in done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_unknown_flags_are_named(name):
    shown, status = run_as(name, "--hlep")
    # 1 is a missed check of vivi-verify.
    assert status == (2 if name == "vivi-verify" else 1)
    assert shown.startswith(f"{name}: Unknown command line flag 'hlep'."), shown
    assert f"See {name} --help." in shown
    assert "Traceback" not in shown


QUIET = """
import sys
from vivi_keras import commands

def main(argv):
    import tensorflow as tf
    tf.function(lambda x: x + 1)(1.0)
    print("done")

sys.argv = ["script"]
commands.run("script", main)
"""


def test_the_start_lines_of_tensorflow_are_hidden():
    done = subprocess.run(
        [sys.executable, "-c", QUIET],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


def import_tensorflow(folder):
    """Imports the tensorflow.py of a folder, as on a machine without a GPU."""
    script = (
        "from vivi_keras import commands\n"
        "commands.hide_start_lines()\n"
        f"commands._GPU_DRIVER = {str(folder / 'none')!r}\n"
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "import tensorflow\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("line", "is_shown"),
    [
        ("E0000 00:00:1 1 x.cc:1] out of memory", True),
        ("Traceback (most recent call last):", True),
        (
            "I0000 00:00:1 1 a.cc:1] oneDNN custom operations are on.",
            False,
        ),
        ("E0000 00:00:1 1 x.cc:52] failed call to cuInit: ERROR (303)", False),
    ],
)
def test_other_lines_of_an_import_are_shown(line, is_shown, tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        f"import os\nos.write(2, {line.encode()!r} + b'\\n')\n"
        "class config:\n    list_physical_devices = staticmethod(list)\n"
    )
    done = import_tensorflow(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (line + "\n" if is_shown else "")


def test_errors_while_tensorflow_loads_are_shown(tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'libx.so is damaged\\n')\n1 / 0\n"
    )
    done = import_tensorflow(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("libx.so is damaged\n")
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--module=nowhere"], "evaluate: module must be a SavedModel f"),
        (
            ["--module=keras.applications.No"],
            "evaluate: The network of .* must be one of .* Got: 'No'",
        ),
        (
            ["--module={shipped}", "--output_name=a"],
            "evaluate: .* module .* has one output. Got: 'a'",
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


def test_the_last_words_of_a_tensorflow_that_aborts_are_shown(tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'compiled to use AVX\\n')\nos.abort()\n"
    )
    done = import_tensorflow(tmp_path)
    assert done.returncode == -6
    assert "compiled to use AVX" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=vivi_ex4", "--config=vivi_ex2"], "is given twice"),
        (["--config"], "--config has no value."),
        (["--config=vivi_ex4/x"], "must end in .py"),
        (["--config={folder}/none.py"], "must be a row or a file. Got: "),
        (["--config={folder}/exits.py"], "fails: SystemExit: 3"),
        (["--config={folder}/raises.py"], "fails: ZeroDivisionError: division"),
        (["--config={folder}/syntax.py"], "fails: SyntaxError: "),
        (["--config={folder}/empty.py"], "has no attribute 'get_config'"),
        (["--config={folder}/none_back.py"], "Got: NoneType"),
        (
            ["--config={folder}/good.py", "--config.train.stps=1"],
            "Did you mean config.train.steps?",
        ),
        (["--flagfile={folder}/flags"], "Unknown config 'vivi_ex5'"),
    ],
)
def test_configs_that_cannot_be_had_are_told(arguments, said, tmp_path):
    for name, text in {
        "exits": "import sys\nsys.exit(3)",
        "raises": "def get_config():\n    1 / 0",
        "syntax": "def get_config(:",
        "empty": "",
        "none_back": "def get_config():\n    pass",
        "good": "from vivi_keras.training import configs\n"
        "def get_config():\n    return configs.get_config('vivi_ex4_demo')",
    }.items():
        (tmp_path / f"{name}.py").write_text(text + "\n")
    (tmp_path / "flags").write_text("--config=vivi_ex5\n")
    words = [word.format(folder=tmp_path) for word in arguments]
    shown, status = run_as("vivi-pretrain", "--workdir=w", *words)
    assert status == 1
    assert shown.startswith("vivi-pretrain: ") and said in shown, shown
    assert "Traceback" not in shown and shown.count("\n") <= 2, shown


@pytest.mark.parametrize(
    "wrong", ["--config=no_row", "--hlep", "--config", "help"]
)
def test_help_comes_before_mistakes(wrong):
    shown, status = run_as("vivi-pretrain", wrong, "--help")
    assert status == 0 and "vivi-pretrain --config=" in shown


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_no_failure(name, closed):
    module, _ = SCRIPTS[name]
    script = START.format([name, "--help"], module)
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, script],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_row_is_shown_whole():
    shown, status = run_as(
        "vivi-pretrain",
        "--config=vivi_ex4_demo",
        "--config.train.steps=7",
        "--print_config",
    )
    assert status == 0
    shown = json.loads(shown)
    expected = get_config("vivi_ex4_demo")
    expected.train.steps = 7
    assert shown == json.loads(expected.to_json())


@pytest.mark.parametrize(
    ("options", "module"),
    [
        (video.Settings, prepare),
        (watchdog.Limits, prepare),
        (run.Options, pretrain),
    ],
)
def test_flags_are_those_of_the_options(options, module):
    defined = {
        flag.name: flag
        for flag in flags.FLAGS.get_flags_for_module(module.__name__)
    }
    for field in dataclasses.fields(options):
        flag = defined[field.name]
        assert flag.default == field.default
        assert len(flag.help) > 10 and "[" not in flag.help


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("flag", ["--flagfile=missing", "--flagfile"])
def test_a_flag_file_that_is_missing_is_told_in_one_line(name, flag):
    shown, status = run_as(name, flag)
    said, see = shown.splitlines()
    assert status == (2 if name == "vivi-verify" else 1) and "flagfile" in said
    assert said.startswith(f"{name}: ") and see == f"See {name} --help."


def test_a_flag_file_may_hold_the_config_and_its_keys(tmp_path):
    (tmp_path / "flags").write_text(
        "--config.data.batch_size=7\n--config=vivi_ex4_demo\n--print_config\n"
    )
    shown, status = run_as("vivi-pretrain", f"--flagfile={tmp_path / 'flags'}")
    assert status == 0
    assert json.loads(shown)["data"]["batch_size"] == 7


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_backend_that_is_not_installed_is_told(backend):
    # As if it were not there: None in sys.modules is a module not found.
    script = (
        f"import sys; sys.modules[{backend!r}] = None; import vivi_keras;"
        " from vivi_keras import commands;"
        " commands.run('script', lambda argv: __import__('keras'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()[-1:]
    assert line.startswith(f"script: Keras's backend is {backend!r}, by the")
    assert line.endswith("or set KERAS_BACKEND=tensorflow.")
    assert "Traceback" not in done.stderr


class Stream(io.StringIO):
    def isatty(self):
        return False


def test_a_progress_bar_in_a_file_is_few_lines(monkeypatch):
    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    with commands.progress_bar(total=50_000, desc="work") as bar:
        for _ in range(50_000):
            bar.update()
    lines = stream.getvalue().split("\n")
    assert 2 <= len(lines) <= 4 and not lines[-1]
    assert "\r" not in stream.getvalue()
    assert "50000/50000" in lines[-2]


EVALUATE_FLAGS = """
import dataclasses
from absl import flags
from vivi_keras.evaluation.settings import Settings
from vivi_keras.training import evaluate

for field in dataclasses.fields(Settings):
    flag = flags.FLAGS[field.name]
    assert flag.default == field.default, field.name
    assert len(flag.help) > 10 and "[" not in flag.help, flag.help
"""


def test_flags_of_evaluate_are_those_of_its_settings():
    """In its own process: its flags have names that vivi-prepare's have."""
    done = subprocess.run(
        [sys.executable, "-c", EVALUATE_FLAGS], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--module=m", "--output=o", "--steps=9"], "steps has no effect with"),
        (
            ["--module=m", "--output=o", "--suite=video", "--workdir=w"],
            "--workdir has no effect with --suite=video",
        ),
        (["--prepare", "--seeds=2"], "--seeds has no effect with --prepare"),
        (["--compare", "a", "--tasks=x"], "--tasks has no effect with --comp"),
    ],
)
def test_flags_without_effect_are_refused(arguments, said):
    shown, status = run_as("vivi-evaluate", *arguments)
    assert (status, "Traceback" in shown) == (1, False)
    assert said in shown, shown


def test_data_sets_to_download_by_hand_are_no_success(tmp_path):
    shown, status = run_as(
        "vivi-evaluate",
        "--prepare",
        "--suite=vtab",
        "--tasks=resisc45",
        f"--data_dir={tmp_path}",
    )
    assert status == 1
    assert "1 tasks not available: ['resisc45']" in shown
    manual = tmp_path / "downloads" / "manual"
    assert f"{manual}/NWPU-RESISC45/airplane/airplane_001.jpg" in shown


INTERRUPTED = """
import os, signal, sys
# A shell lets what it starts in the background ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = [sys.orig_argv[-2]]
def stop(*unused):
    os.kill(os.getpid(), signal.SIGINT)
import vivi_keras
if sys.orig_argv[-1] == "at_start":
    stop()
from vivi_keras import commands
commands.run("vivi-prepare", stop)
"""


@pytest.mark.parametrize("name", ["vivi-prepare", "bin/vivi"])
@pytest.mark.parametrize(
    ("when", "status", "said"),
    [("at_start", -2, ""), ("later", 130, "vivi-prepare: stopped\n")],
)
def test_ctrl_c_shows_no_traceback(name, when, status, said):
    """At the start too, while the modules are imported."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, name, when],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (status, said)


def test_ctrl_c_is_left_alone_in_other_programs():
    code = (
        "import signal;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "import vivi_keras.training;"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.stdout == "True\n"
