"""vivi-pretrain: trains an encoder as a named config says."""

import difflib
import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

from vivi_keras.training.configs import rows

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Name of a row (--list prints them) or path of a Python file with"
    " get_config(); --config.KEY=VALUE changes a value.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_LIST = flags.DEFINE_bool("list", False, "Print the named rows and exit.")


def pretrain(config, workdir, verbose=None, callbacks=()):
    """Trains the model of a config, or goes on from its last checkpoint.

    Args:
        config: ConfigDict as `training.configs.get_config` gives it.
        workdir: folder of the run: config.json, checkpoints/, tensorboard/
            and metrics.csv.
        verbose: of `keras.Model.fit`; by default a bar on a terminal, else a
            line for each epoch.
        callbacks: more Keras callbacks.
    Returns: the trained ViviModel.
    Raises: ValueError: bad settings, or a work directory of another run.
    """
    import keras

    from vivi_keras import checkpoints, strategies
    from vivi_keras.callbacks import SaveCheckpoints, WriteMetrics
    from vivi_keras.training import build

    if verbose is None:
        verbose = 1 if sys.stdout.isatty() else 2
    workdir, train = pathlib.Path(workdir), config.train
    batches = build.build_batches(config)
    model = build.build_model(config)
    checkpoints.claim_workdir(workdir, config, build.data_fingerprint(config))
    model.build_from(strategies.replica_spec(batches.element_spec, 1))
    manager = checkpoints.CheckpointManager(
        model, workdir, train.keep_checkpoints
    )
    step = manager.restore()
    if step is None:
        step = 0
    else:
        print(f"Going on from step {step} of {train.steps}.", flush=True)
    data = config.data
    images = data.num_shots * data.frames_per_shot * data.copies
    callbacks = [
        SaveCheckpoints(manager, train.checkpoint_every_steps),
        WriteMetrics(workdir / "metrics.csv", images * data.batch_size),
        keras.callbacks.TensorBoard(str(workdir / "tensorboard")),
        *callbacks,
    ]
    if step < train.steps:
        batches = build.build_batches(config, step, train.steps - step)
        every = train.log_every_steps
        model.fit(
            batches,
            initial_epoch=step // every,
            epochs=-(-train.steps // every),
            steps_per_epoch=every,
            callbacks=callbacks,
            verbose=verbose,
        )
    return model


def main(argv):
    if _LIST.value:
        for name, (text, _) in rows.ROWS.items():
            print(f"{name:16} {text}")
        print("NAME_demo is the same at a scale for two CPU cores.")
        return
    if len(argv) > 1:
        raise app.UsageError(f"Expected only flags; got {argv[1:]}.")
    for name, value in (("config", _CONFIG.value), ("workdir", _WORKDIR.value)):
        if value is None:
            raise app.UsageError(f"--{name} is missing.")
    if not _CONFIG.value.data.dataset:
        raise app.UsageError("--config.data.dataset is missing.")
    try:
        pretrain(_CONFIG.value, _WORKDIR.value)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"vivi-pretrain: {error}")


def named(argv):
    """Replaces a row's name in `--config` by what config_flags takes.

    Raises: app.UsageError: an unknown row or an unknown key.
    """
    argv, config = list(argv), None
    for i, word in enumerate(argv):
        flag, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or flag != "config":
            continue
        if not equals and i + 1 < len(argv):
            value = argv.pop(i + 1)
        if value.endswith(".py") or ".py:" in value:
            return argv
        try:
            config = rows.get_config(value)
        except ValueError as error:
            raise app.UsageError(str(error)) from None
        argv[i] = f"--config={rows.__file__}:{value}"
        break
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


def run():
    """The console script vivi-pretrain."""
    try:
        argv = named(sys.argv)
    except app.UsageError as error:
        sys.exit(f"vivi-pretrain: {error}")
    app.run(main, argv=argv)


if __name__ == "__main__":
    run()
