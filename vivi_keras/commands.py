"""How the scripts start and fail: flags, help, one line of error."""

import functools
import gc
import importlib.util
import os
import re
import sys
import tempfile

from absl import app, flags, logging

_TOLD = (ValueError, OSError, ImportError, RuntimeError, app.UsageError)

# What TensorFlow writes to file descriptor 2 on every start, below Python and
# partly before its own log level counts.
_START_LINES = re.compile(
    r"All log messages before absl::InitializeLog"
    r"|oneDNN custom operations are on"
    r"|This TensorFlow binary is optimized"
    r"|To enable the following instructions"
    r"|Could not find TensorRT"
    r"|XLA service 0x|StreamExecutor device|Compiled cluster using XLA"
)
# The same on a machine without a GPU; with one they are real errors.
_NO_GPU_LINES = re.compile(
    r"Could not find cuda drivers"
    r"|failed call to cuInit"
    r"|no NVIDIA GPU device is present"
    r"|Unable to register cu"
    r"|Cannot dlopen some GPU libraries"
    r"|Skipping registering GPU devices"
)
_GPU_DRIVER = "/dev/nvidiactl"


def run(name, main, argv=None):
    """Parses the flags and calls `main`; never returns.

    `--help` shows the docstring and the flags of main's module, also where a
    console script, and not that module, is what Python runs; its exit status
    is 0. Errors that name what was expected and what came are one line and
    exit status 1; their traceback is shown with `--verbosity=1`. Ctrl-C ends
    it in one line, too, with status 130.

    Args:
        name: str, the script's.
        main: function of the arguments left over by the flags.
        argv: list of str; None for `sys.argv`.
    """
    script = sys.modules["__main__"]
    module = sys.modules[main.__module__]
    if module is not script:
        script.__doc__ = module.__doc__
        for flag in flags.FLAGS.get_key_flags_for_module(main.__module__):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    hide_start_lines()
    app.run(
        functools.partial(tell, name, main),
        argv=argv,
        flags_parser=functools.partial(_parse, name),
    )


def _parse(name, argv):
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        said = str(error)
    except SystemExit:  # --help, which absl ends with status 1
        sys.exit(0)
    end(name, f"{said}\nSee {name} --help.", 1)


class _QuietImport(importlib.abc.MetaPathFinder):
    """Imports TensorFlow without what it writes on every start."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            load = spec.loader.exec_module
            spec.loader.exec_module = functools.partial(_load_quietly, load)
        return spec


def hide_start_lines():
    """Hides what TensorFlow writes when it is imported; errors are shown.

    Has no effect on a TensorFlow that is imported already.
    """
    # Its log says again what exceptions say, and much that is no error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules and not any(
        isinstance(finder, _QuietImport) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _QuietImport())


def _load_quietly(load, module):
    sys.stderr.flush()
    shown = os.dup(2)
    try:
        with tempfile.TemporaryFile() as written:
            os.dup2(written.fileno(), 2)
            try:
                load(module)
                # Looks for a GPU, which writes lines of its own.
                module.config.list_physical_devices()
            finally:
                os.dup2(shown, 2)
                written.seek(0)
                _show(written.read().decode(errors="replace"))
    finally:
        os.close(shown)


def _show(text):
    """Writes the lines that are not written on every start."""
    has_gpu = os.path.exists(_GPU_DRIVER)
    for line in text.splitlines(keepends=True):
        if _START_LINES.search(line):
            continue
        if has_gpu or not _NO_GPU_LINES.search(line):
            sys.stderr.write(line)
    sys.stderr.flush()


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
