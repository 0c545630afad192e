"""Starts the scripts: parses flags, shows help, shows errors in one line."""

import contextlib
import dataclasses
import functools
import gc
import inspect
import os
import re
import signal
import subprocess
import sys
import typing

from absl import app, flags, logging

from vivi_keras import ImportHook

_ERRORS = (ValueError, OSError, ImportError, RuntimeError, app.UsageError)

# Lines that TensorFlow's C++ code writes to file descriptor 2 on every start,
# partly before its log level takes effect.
_START_LINES = (
    "All log messages before absl::InitializeLog"
    "|oneDNN custom operations are on"
    "|This TensorFlow binary is optimized"
    "|To enable the following instructions"
    "|Could not find TensorRT"
)
# On a machine without a GPU it writes these lines too. On a machine with a GPU
# they are real errors.
_NO_GPU_LINES = (
    "|Could not find cuda drivers"
    "|failed call to cuInit"
    "|no NVIDIA GPU device is present"
    "|Unable to register cu"
    "|Cannot dlopen some GPU libraries"
    "|Skipping registering GPU devices"
)
_GPU_DRIVER = "/dev/nvidiactl"
# The filter runs in its own process, so that lines that TensorFlow writes just
# before it aborts are still shown.
_FILTER = """
import re, sys
for line in sys.stdin.buffer:
    if not re.search(sys.argv[1].encode(), line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""
_HELP = ("h", "help", "helpshort", "helpfull", "helpxml", "?")


flags.disclaim_key_flags()  # flags belong to the script that asks for them


def define_flags(options):
    """Defines a flag, with default and help, for each field of a dataclass.

    Args:
        options: dataclass of bool, int, float, str or tuple fields, which may
            be None; its docstring describes each under "Attributes:".
    Returns: list of absl flag holders, in the fields' order.
    """
    holders = []
    texts = _attribute_texts(options)
    for field in dataclasses.fields(options):
        kinds = typing.get_args(field.type) or (field.type,)
        define = {
            bool: flags.DEFINE_bool,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            str: flags.DEFINE_string,
            tuple: flags.DEFINE_list,
        }[kinds[0]]
        holders.append(define(field.name, field.default, texts[field.name]))
    return holders


def _attribute_texts(options):
    """Dict of field -> its text in the docstring, without tags such as [O]."""
    lines = inspect.getdoc(options).partition("Attributes:\n")[2].splitlines()
    texts = {}
    for line in lines:
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            name = start[1]
            texts[name] = start[2]
        elif line.startswith("     "):
            texts[name] += " " + line.strip()
        else:
            break
    return {
        name: re.sub(r" *\[[A-Z]\]( [\d.]+)?\.?$", "", text)
        for name, text in texts.items()
    }


def run(name, main, prepare_argv=None, error_status=1):
    """Parses the flags and calls `main`; never returns.

    `--help` shows the docstring and the flags of main's module, even if Python
    runs a console script instead of that module; its exit status is 0. An
    expected error (such as ValueError or OSError) is shown in one line, with
    exit status `error_status`; `--verbosity=1` also shows its traceback. Ctrl-C
    is shown in one line too, with status 130.

    Args:
        name: str, the script's name.
        main: function of the arguments left after the flags.
        prepare_argv: function of `sys.argv` -> the arguments to parse; it may
            raise `app.UsageError`.
        error_status: int, exit status of wrong usage and expected errors.
    """
    _open_streams()
    script = sys.modules["__main__"]
    module = sys.modules[main.__module__]
    if module is not script:
        script.__doc__ = module.__doc__
        for flag in flags.FLAGS.get_key_flags_for_module(main.__module__):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    hide_start_lines()
    app.run(
        functools.partial(run_main, name, main, error_status=error_status),
        argv=sys.argv,
        flags_parser=functools.partial(
            _parse, name, prepare_argv, error_status
        ),
    )


def _open_streams():
    """Makes it safe to print any text, also to a closed stream."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
        # File names may hold characters that the terminal cannot show.
        getattr(sys, stream).reconfigure(errors="backslashreplace")


def _parse(name, prepare_argv, error_status, argv):
    help_flag = _help_flag(argv)
    if help_flag is not None:
        with contextlib.suppress(SystemExit):  # absl's, with status 1
            flags.FLAGS([argv[0], help_flag])
        sys.exit(0)
    try:
        if prepare_argv is not None:
            argv = prepare_argv(argv)
        return flags.FLAGS(argv)
    except (flags.Error, app.UsageError) as error:
        said = str(error)
    end(name, f"{said}\nSee {name} --help.", error_status)


def _help_flag(argv):
    """The first flag that asks for help, as absl knows it, or None."""
    words = argv[1 : argv.index("--") if "--" in argv else None]
    for word in words:
        if word.startswith("-") and word.lstrip("-") in _HELP:
            return "--help" if word.lstrip("-") == "h" else word
    return None


class _QuietImport(ImportHook):
    """Imports TensorFlow without the lines that it writes on every start."""

    def wants(self, name):
        return name == "tensorflow"

    def load(self, module, load):
        with _start_lines_hidden():
            load(module)
            # Looking for a GPU writes more such lines.
            module.config.list_physical_devices()


def hide_start_lines():
    """Hides the lines that TensorFlow writes on import; errors are shown.

    Has no effect if TensorFlow is imported already.
    """
    # TensorFlow's log repeats its exceptions and has many lines besides errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not any(isinstance(finder, _QuietImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietImport())


@contextlib.contextmanager
def _start_lines_hidden():
    hidden = _START_LINES
    if not os.path.exists(_GPU_DRIVER):
        hidden += _NO_GPU_LINES
    try:
        shown = os.dup(2)
    except OSError:  # standard error is closed: nothing is shown
        yield
        return
    sys.stderr.flush()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _FILTER, hidden],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C must not end the filter
    ) as process:
        os.dup2(process.stdin.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)


def progress_bar(*args, **kwargs):
    """A `tqdm.tqdm` on standard error.

    If standard error is a file, not a terminal, it prints a line a minute
    instead of rewriting one line.

    Args:
        *args, **kwargs: as `tqdm.tqdm`, except `file` and `mininterval`.
    """
    import tqdm

    if sys.stderr.isatty():
        return tqdm.tqdm(*args, **kwargs)
    lines = _Lines(sys.stderr)
    return tqdm.tqdm(
        *args, **kwargs, file=lines, mininterval=60, maxinterval=60
    )


class _Lines:
    """Writes each state of a progress bar to a stream as its own line."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        text = text.strip()
        if text:
            self._stream.write(f"{text}\n")

    def flush(self):
        self._stream.flush()


def run_main(name, main, argv, error_status=1):
    """Calls `main`; shows an expected error in one line and exits."""
    # At level INFO, TFDS logs every file that it opens.
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        # Until here Ctrl-C ends the process at once; see `vivi_keras`.
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return main(argv)
    except Exception as error:
        if not isinstance(error, _errors()):
            raise
        logging.debug("where it was raised", exc_info=True)
        if isinstance(error, BrokenPipeError):  # nothing reads the output
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        said, status = str(error), error_status
        if isinstance(error, app.UsageError):
            said = f"{said}\nSee {name} --help."
        elif not isinstance(error, _ERRORS):  # an OpError, with a long text
            from vivi_keras.checks import reason

            said = reason(error)
    except KeyboardInterrupt:
        said, status = "stopped", 130
    end(name, said, status)


def _errors():
    """Errors to show without a traceback, with TensorFlow's if imported."""
    tensorflow = sys.modules.get("tensorflow")
    return (
        _ERRORS if tensorflow is None else (*_ERRORS, tensorflow.errors.OpError)
    )


def end(name, said, status):
    """Prints a message and ends the process; call it outside of `except`.

    An error keeps its stack frames alive, and they keep the input pipeline
    alive. A pipeline that is freed only at interpreter exit waits forever for
    its threads, which can no longer run Python.
    """
    gc.collect()
    if status == 1:  # sys.exit(text) prints the text and exits with 1
        sys.exit(f"{name}: {said}")
    print(f"{name}: {said}", file=sys.stderr, flush=True)
    sys.exit(status)
