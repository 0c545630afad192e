"""vivi-pretrain: trains an encoder as a named config says."""

import contextlib
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
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one", "mirrored", "multiworker", "tpu"],
    "Devices to train on; auto: a TPU, else all GPUs, else one device.",
)
_ALLOW_NEW_DATA = flags.DEFINE_bool(
    "allow_new_data", False, "Go on though the data set has changed."
)
_SKIP_NONFINITE = flags.DEFINE_bool(
    "skip_nonfinite", False, "Leave out steps whose loss is not finite."
)

# EX_TEMPFAIL: stopped by SIGTERM with the step saved; start it again.
PREEMPTED_STATUS = 75


def pretrain(
    config,
    workdir,
    verbose=None,
    callbacks=(),
    *,
    strategy="auto",
    allow_new_data=False,
    skip_nonfinite=False,
):
    """Trains the model of a config, or goes on from its last checkpoint.

    Args:
        config: ConfigDict as `training.configs.get_config` gives it.
        workdir: folder of the run: config.json, checkpoints/, tensorboard/
            and metrics.csv.
        verbose: of `keras.Model.fit`; by default a bar on a terminal, else a
            line for each epoch.
        callbacks: more Keras callbacks.
        strategy: see `strategies.make_strategy`.
        allow_new_data: go on though the data set has changed.
        skip_nonfinite: leave out steps whose loss is not finite.
    Returns: the trained ViviModel.
    Raises: ValueError: bad settings, or a work directory of another run, or
        in use. Preempted: SIGTERM came; the step is saved.
    """
    from vivi_keras import strategies

    strategy = strategies.make_strategy(strategy)
    if verbose is None:
        verbose = 1 if sys.stdout.isatty() else 2
    with contextlib.ExitStack() as stack:
        return _pretrain(
            config,
            pathlib.Path(workdir),
            strategy,
            {"verbose": verbose, "callbacks": callbacks},
            allow_new_data,
            skip_nonfinite,
            stack,
        )


def _pretrain(
    config, workdir, strategy, fit, allow_new_data, skip_nonfinite, stack
):
    from vivi_keras import checkpoints, strategies, workdirs
    from vivi_keras.callbacks import StopAtSigterm
    from vivi_keras.training import build, streams

    def batches(step, num_steps=None):
        return strategies.distributed_batches(
            strategy,
            lambda shard: streams.build_batches(config, step, num_steps, shard),
        )

    train, count = config.train, strategy.num_replicas_in_sync
    streams.name_classes(config)
    if train.steps:
        spec = streams.build_batches(config).element_spec
    else:  # an encoder before training needs no data
        spec = build.element_spec(config)
    spec = strategies.replica_spec(spec, count)
    with strategy.scope():
        model = build.build_model(config, skip_nonfinite)
    # Settings that cannot work have failed by now: no folder is made for them.
    if _is_chief(strategy):
        stack.enter_context(workdirs.locked(workdir))
        workdirs.claim_workdir(
            workdir, config, streams.data_fingerprint(config), allow_new_data
        )
    model.build_from(spec)
    manager = checkpoints.CheckpointManager(
        model, workdir, train.keep_checkpoints, writes=_is_chief(strategy)
    )
    step = manager.restore()
    if step is None:
        step = 0
        if config.model.init:
            build.start_from(model.encoder, config.model.init)
        if not train.steps:
            manager.save(wait=True)
    else:
        print(f"Going on from step {step} of {train.steps}.", flush=True)
    every = train.log_every_steps
    # A checkpoint at the end of a row of metrics holds that row's sums.
    model.resumed = step % every != 0
    sigterm = StopAtSigterm()
    fit["callbacks"] = [
        *_callbacks(config, workdir, manager),
        sigterm,
        *fit["callbacks"],
    ]
    for start, stop in _spans(step, train.steps, every):
        model.fit(
            batches(start, stop - start),
            initial_epoch=start // every,
            epochs=-(-stop // every),
            steps_per_epoch=min(every, stop - start),
            **fit,
        )
        if sigterm.stopped:
            raise Preempted(
                f"SIGTERM came; saved step {int(model.step)} of {train.steps}."
                " The same command goes on from there."
            )
    return model


class Preempted(Exception):
    """Training was told to stop, and can go on later."""


def _is_chief(strategy):
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_id


def _spans(step, steps, every):
    """Parts of [step, steps) that `fit` can cut into equal epochs."""
    cuts = {step, min(steps, -(-step // every) * every), steps}
    cuts.add(max(step, steps // every * every))
    cuts = sorted(cuts)
    return list(zip(cuts, cuts[1:], strict=False)) if step < steps else []


def _callbacks(config, workdir, manager):
    import keras

    from vivi_keras import callbacks
    from vivi_keras.training import streams

    train, tests = config.train, []
    test_batches = streams.test_batches(config)
    if test_batches is not None:
        tests = [
            callbacks.TestLabels(
                test_batches, train.test_every_steps, train.steps
            )
        ]
    logs = [
        *tests,
        callbacks.WriteMetrics(
            workdir / "metrics.csv", streams.images_per_step(config)
        ),
        keras.callbacks.TensorBoard(str(workdir / "tensorboard")),
    ]
    return [
        callbacks.StopAtNonFinite(manager),
        callbacks.WarnOfCollapse(),
        callbacks.SaveCheckpoints(manager, train.checkpoint_every_steps),
        *(logs if manager.writes else []),
    ]


def main(argv):
    if _LIST.value:
        for name, (text, _) in rows.ROWS.items():
            print(f"{name:18} {text}")
        print("NAME_demo is the same at a scale for two CPU cores.")
        return
    if len(argv) > 1:
        raise app.UsageError(f"Expected only flags; got {argv[1:]}.")
    for name, value in (("config", _CONFIG.value), ("workdir", _WORKDIR.value)):
        if value is None:
            raise app.UsageError(f"--{name} is missing.")
    from vivi_keras.training import streams

    try:
        if streams.needs_videos(_CONFIG.value) and not (
            _CONFIG.value.data.dataset
        ):
            raise app.UsageError("--config.data.dataset is missing.")
        pretrain(
            _CONFIG.value,
            _WORKDIR.value,
            strategy=_STRATEGY.value,
            allow_new_data=_ALLOW_NEW_DATA.value,
            skip_nonfinite=_SKIP_NONFINITE.value,
        )
    except Preempted as error:
        print(f"vivi-pretrain: {error}", file=sys.stderr)
        sys.exit(PREEMPTED_STATUS)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
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
