"""How the console scripts start: flags parsed, help that shows them."""

import sys

from absl import app, flags


def run(main, argv=None):
    """Parses the flags and calls `main`; never returns.

    `--help` shows the docstring and the flags of main's module, also where a
    console script, and not that module, is what Python runs.

    Args:
        main: function of the arguments left over by the flags.
        argv: list of str; None for `sys.argv`.
    """
    script = sys.modules["__main__"]
    module = sys.modules[main.__module__]
    if module is not script:
        script.__doc__ = module.__doc__
        for flag in flags.FLAGS.get_flags_for_module(main.__module__):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(main, argv=argv)
