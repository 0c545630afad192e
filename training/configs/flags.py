"""The flag --config: a row's name, and keys that exist."""

import difflib

from absl import app

from vivi_keras.training.configs import rows


def named(argv):
    """Puts `--config` first, a row's name replaced by its file.

    Raises: app.UsageError: an unknown row or an unknown key.
    """
    argv, config = list(argv), None
    # It is read first, whatever the order: the others change its values.
    for i, word in enumerate(argv):
        flag, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or flag != "config":
            continue
        if not equals and i + 1 < len(argv):
            value = argv.pop(i + 1)
        del argv[i]
        if not (value.endswith(".py") or ".py:" in value):
            try:
                config = rows.get_config(value)
            except ValueError as error:
                raise app.UsageError(str(error)) from None
            value = f"{rows.__file__}:{value}"
        argv.insert(1, f"--config={value}")
        break
    else:
        if any(word.lstrip("-").startswith("config.") for word in argv[1:]):
            raise app.UsageError("--config is missing.")
    if config is not None:
        for word in argv:
            flag = word.lstrip("-").partition("=")[0]
            if word.startswith("-") and flag.startswith("config."):
                _check_key(config, flag)
    return argv


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
