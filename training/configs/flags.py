"""Reads the flag --config, a row's name or a file, and checks its keys."""

import difflib
import importlib.util
import os

import ml_collections
from absl import app, flags

from vivi_keras.training.configs import rows

# The arguments that config_flags reads, set by `prepare_argv`. By default,
# config_flags reads the arguments of the process as soon as the flag is
# defined, which is too early to report a missing flag file.
ARGV = []


def prepare_argv(argv):
    """Moves `--config` to the front and replaces a row's name by its file.

    `--config` must be read first, since the flags `--config.KEY` change its
    values. Flag files (`--flagfile`) are expanded. Fills `ARGV`.

    Raises: app.UsageError: an unknown row or key, or a file without a config.
    """
    words = flags.FLAGS.read_flags_from_files(argv[1:])
    end = words.index("--") if "--" in words else len(words)
    words, rest = words[:end], words[end:]
    values, others = [], []
    words.reverse()
    while words:
        word = words.pop()
        flag, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or flag != "config":
            others.append(word)
        elif equals or words:
            values.append(value if equals else words.pop())
        else:
            raise app.UsageError("--config has no value.")
    keys = [
        word.lstrip("-").partition("=")[0]
        for word in others
        if word.startswith("-") and word.lstrip("-").startswith("config.")
    ]
    if not values:
        if keys:
            raise app.UsageError("--config must be given.")
        ARGV[:] = [argv[0], *others, *rest]
        return ARGV[:]
    if len(values) > 1:
        raise app.UsageError(f"--config is given twice: {', '.join(values)}")
    path, config = _find_config(values[0])
    for key in keys:
        _check_key(config, key)
    ARGV[:] = [argv[0], f"--config={path}", *others, *rest]
    return ARGV[:]


def _find_config(value):
    """(the value for config_flags, the config) of a row's name or a file."""
    file, colon, argument = value.partition(".py:")
    if not (colon or value.endswith(".py")):
        try:
            return f"{rows.__file__}:{value}", rows.get_config(value)
        except ValueError as error:
            raise app.UsageError(
                f"{error} The path of a config's file must end in .py."
            ) from None
    file = f"{file}.py" if colon else value
    if not os.path.isfile(file):
        raise app.UsageError(f"--config must be a row or a file. Got: {file}")
    spec = importlib.util.spec_from_file_location("config_file", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(*([argument] if colon else []))
    except (Exception, SystemExit) as error:
        raise app.UsageError(
            f"--config={value} fails: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise app.UsageError(
            f"get_config() of {file} must return an ml_collections.ConfigDict."
            f" Got: {type(config).__name__}"
        )
    return value, config


def _check_key(config, flag):
    place, at = config, "config"
    for key in flag.split(".")[1:]:
        known = list(place) if hasattr(place, "keys") else []
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {at}.{near[0]}?" if near else ""
            raise app.UsageError(
                f"Unknown config key {flag}.{hint} Known in {at}:"
                f" {', '.join(known) if known else 'nothing'}"
            )
        place, at = place[key], f"{at}.{key}"
