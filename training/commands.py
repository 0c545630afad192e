"""How the console scripts start and fail: flags, help, one line of error."""

import functools
import gc
import os
import sys

from absl import app, flags, logging

# Before TensorFlow is imported: its start-up lines would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


_TOLD = (ValueError, OSError, ImportError, RuntimeError)


def run(name, main, argv=None):
    """Parses the flags and calls `main`; never returns.

    `--help` shows the docstring and the flags of main's module, also where a
    console script, and not that module, is what Python runs. Errors that name
    what was expected and what came are one line and exit status 1; their
    traceback is shown with `--verbosity=1`. Ctrl-C ends it in one line, too,
    with status 130.

    Args:
        name: str, the script's.
        main: function of the arguments left over by the flags.
        argv: list of str; None for `sys.argv`.
    """
    script = sys.modules["__main__"]
    module = sys.modules[main.__module__]
    if module is not script:
        script.__doc__ = module.__doc__
        for flag in flags.FLAGS.get_flags_for_module(main.__module__):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(functools.partial(tell, name, main), argv=argv)


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
        if not isinstance(error, _TOLD):  # TensorFlow's: many lines
            from vivi_keras.checkpoints import reason

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
