"""How the scripts start and fail: flags, help, one line of error."""

import contextlib
import dataclasses
import functools
import gc
import importlib.abc
import inspect
import os
import re
import subprocess
import sys
import typing

from absl import app, flags, logging

_TOLD = (ValueError, OSError, ImportError, RuntimeError, app.UsageError)

# What TensorFlow writes to file descriptor 2 on every start, below Python and
# partly before its own log level counts.
_START_LINES = (
    "All log messages before absl::InitializeLog"
    "|oneDNN custom operations are on"
    "|This TensorFlow binary is optimized"
    "|To enable the following instructions"
    "|Could not find TensorRT"
)
# The same on a machine without a GPU; with one they are real errors.
_NO_GPU_LINES = (
    "|Could not find cuda drivers"
    "|failed call to cuInit"
    "|no NVIDIA GPU device is present"
    "|Unable to register cu"
    "|Cannot dlopen some GPU libraries"
    "|Skipping registering GPU devices"
)
_GPU_DRIVER = "/dev/nvidiactl"
# A process of its own: what TensorFlow writes before it aborts is not lost.
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
    """Defines a flag for each field of a dataclass, defaults and help its own.

    Args:
        options: dataclass of bool, int, float, str or tuple fields, any of
            them or None; its docstring describes each under "Attributes:".
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
    """Field -> its text in the docstring, without the certainty ([O])."""
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


def run(name, main, prepare_argv=None):
    """Parses the flags and calls `main`; never returns.

    `--help` shows the docstring and the flags of main's module, also where a
    console script, and not that module, is what Python runs; its exit status
    is 0. Errors that name what was expected and what came are one line and
    exit status 1; their traceback is shown with `--verbosity=1`. Ctrl-C ends
    it in one line, too, with status 130.

    Args:
        name: str, the script's.
        main: function of the arguments left over by the flags.
        prepare_argv: function of `sys.argv` -> the arguments to parse; it may
            raise `app.UsageError`.
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
        functools.partial(tell, name, main),
        argv=sys.argv,
        flags_parser=functools.partial(_parse, name, prepare_argv),
    )


def _open_streams():
    """Any text can be printed, and a closed stream swallows what is printed."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
        # File names may hold characters that the terminal has none for.
        getattr(sys, stream).reconfigure(errors="backslashreplace")


def _parse(name, prepare_argv, argv):
    if _asks_for_help(argv):
        with contextlib.suppress(SystemExit):  # absl's, with status 1
            word = next(w for w in argv[1:] if w.lstrip("-") in _HELP)
            word = "--help" if word == "-h" else word
            flags.FLAGS([argv[0], word])
        sys.exit(0)
    try:
        if prepare_argv is not None:
            # config_flags reads sys.argv itself.
            argv[:] = sys.argv[:] = prepare_argv(argv)
        return flags.FLAGS(argv)
    except (flags.Error, app.UsageError) as error:
        said = str(error)
    end(name, f"{said}\nSee {name} --help.", 1)


def _asks_for_help(argv):
    words = argv[1 : argv.index("--") if "--" in argv else None]
    return any(w.startswith("-") and w.lstrip("-") in _HELP for w in words)


class _QuietImport(importlib.abc.MetaPathFinder):
    """Imports TensorFlow without what it writes on every start."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    load = spec.loader.exec_module
                    spec.loader.exec_module = functools.partial(_load, load)
                    return spec
        return None


def hide_start_lines():
    """Hides what TensorFlow writes when it is imported; errors are shown.

    Has no effect on a TensorFlow that is imported already.
    """
    # Its log says again what exceptions say, and much that is no error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not any(isinstance(finder, _QuietImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietImport())


def _load(load, module):
    with _start_lines_hidden():
        load(module)
        # Looks for a GPU, which writes lines of its own.
        module.config.list_physical_devices()


@contextlib.contextmanager
def _start_lines_hidden():
    hidden = _START_LINES
    if not os.path.exists(_GPU_DRIVER):
        hidden += _NO_GPU_LINES
    try:
        shown = os.dup(2)
    except OSError:  # closed: nothing is shown
        yield
        return
    sys.stderr.flush()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _FILTER, hidden],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process
    ) as process:
        os.dup2(process.stdin.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)


def tell(name, main, argv):
    """Calls `main`; its errors end the process in one line, status 1."""
    # At INFO, TFDS tells of every file it opens.
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        return main(argv)
    except Exception as error:
        if not isinstance(error, _told()):
            raise
        logging.debug("where it was raised", exc_info=True)
        if isinstance(error, BrokenPipeError):  # nobody reads what is left
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        said, status = str(error), 1
        if isinstance(error, app.UsageError):
            said = f"{said}\nSee {name} --help."
        elif not isinstance(error, _TOLD):  # TensorFlow's: many lines
            from vivi_keras.checks import reason

            said = reason(error)
    except KeyboardInterrupt:
        said, status = "stopped", 130
    end(name, said, status)


def _told():
    """Kinds of errors whose text is enough; TensorFlow's if it is in use."""
    tensorflow = sys.modules.get("tensorflow")
    return _TOLD if tensorflow is None else (*_TOLD, tensorflow.errors.OpError)


def end(name, said, status):
    """Ends the process in one line; to be called outside of `except`.

    An error keeps the frames that it passed, and they the input pipeline;
    were that freed only while the interpreter ends, it would wait for ever
    for its threads, which then no longer run Python.
    """
    gc.collect()
    if status == 1:  # what Python makes of a text
        sys.exit(f"{name}: {said}")
    print(f"{name}: {said}", file=sys.stderr, flush=True)
    sys.exit(status)
