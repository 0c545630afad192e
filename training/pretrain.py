"""vivi-pretrain: trains an encoder as a named config says.

Example:
  vivi-pretrain --config=vivi_ex4_demo --config.data.dataset=data --workdir=run
"""

import contextlib
import difflib
import functools
import math
import pathlib
import sys
import time

from absl import app, flags
from ml_collections import config_flags

from vivi_keras.training import commands
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
_XLA = flags.DEFINE_enum(
    "xla", "auto", ["auto", "on", "off"], "Compile the step; auto: on one GPU."
)
_STEPS_PER_EXECUTION = flags.DEFINE_integer(
    "steps_per_execution", 1, "Steps between two looks of the callbacks.", 1
)
_PREFETCH = flags.DEFINE_integer(
    "prefetch", 2, "Batches that wait ready for the step.", 0
)
_PROBE = flags.DEFINE_string(
    "probe",
    None,
    "Score the encoder on a labelled set while it trains: digits,"
    " fashion_mnist, a TFDS name or a folder of class folders.",
)
_PROBE_EVERY_STEPS = flags.DEFINE_integer(
    "probe_every_steps",
    None,
    "Steps between two scores; by default train.checkpoint_every_steps.",
    1,
)
_PROFILE_STEPS = flags.DEFINE_list(
    "profile_steps", None, "START,STOP: steps of this run to profile."
)

# EX_TEMPFAIL: stopped by SIGTERM with the step saved; start it again.
PREEMPTED_STATUS = 75
_STARTED = time.monotonic()


def pretrain(
    config,
    workdir,
    verbose=None,
    callbacks=(),
    *,
    strategy="auto",
    allow_new_data=False,
    skip_nonfinite=False,
    xla="auto",
    steps_per_execution=1,
    prefetch=2,
    probe=None,
    probe_every_steps=None,
    profile_steps=None,
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
        xla: "on", "off", or "auto" for on with one GPU.
        steps_per_execution: int, steps between two looks of the callbacks.
        prefetch: int, batches that wait ready for the step.
        probe: None, or what `probes.ProbeData` takes.
        probe_every_steps: int; None for `train.checkpoint_every_steps`.
        profile_steps: None, or (start, stop) of the steps to profile.
    Returns: the trained ViviModel.
    Raises: ValueError: bad settings, or a work directory of another run, or
        in use. Preempted: SIGTERM came; the step is saved.
        strategies.WorkerLost: another worker is gone.
    """
    from vivi_keras import (
        checkpoints,
        precision,
        strategies,
        watching,
        workdirs,
    )
    from vivi_keras.callbacks import (
        SaveCheckpoints,
        StopAtNonFinite,
        StopAtSigterm,
        WarnOfCollapse,
    )
    from vivi_keras.training import build, streams
    from vivi_keras.training.configs import ranges

    ranges.check_numbers(config)
    workdir, train = pathlib.Path(workdir), config.train
    strategy = strategies.make_strategy(strategy)
    is_chief = _is_chief(strategy)
    if is_chief:
        workdirs.check_writable(workdir)

    @functools.lru_cache(maxsize=1)
    def batches(start, stop):
        return strategies.distributed_batches(
            strategy,
            lambda shard: streams.build_batches(
                config, start, stop - start, shard
            ),
            prefetch,
        )

    with contextlib.ExitStack() as stack:
        # From here on: what comes before the first step may take long.
        sigterm = stack.enter_context(StopAtSigterm())
        streams.name_labels(config)
        stack.enter_context(precision.computing_in(train.precision))
        # Those that training most likely begins with: they are kept for it.
        saved = checkpoints.saved_steps(workdir)
        spans = _spans(saved[-1] if saved else 0, train)
        if spans:
            spec = batches(*spans[0]).element_spec
        else:  # nothing is trained
            spec = build.element_spec(config)
        spec = strategies.replica_spec(spec, 1)
        with strategy.scope():
            model = build.build_model(
                config,
                skip_nonfinite,
                jit_compile={"on": True, "off": False}.get(xla, xla),
            )
        model.build_from(spec)
        speed = watching.MeasureSpeed(streams.images_per_step(config))
        pages = _pages(config, workdir, probe, probe_every_steps, profile_steps)
        if config.model.init and not saved:
            build.start_from(model.encoder, config.model.init)
        # Settings that cannot work have failed by now: no folder is made for
        # them.
        if is_chief:
            _claim(stack, config, workdir, allow_new_data)
        manager = checkpoints.CheckpointManager(
            model,
            workdir,
            train.keep_checkpoints,
            train.keep_every_steps,
            writes=is_chief,
        )
        stack.enter_context(strategies.lost_workers_told(strategy))
        _train(
            model,
            batches,
            train,
            manager,
            steps_per_execution,
            verbose=verbose,
            callbacks=[
                StopAtNonFinite(manager),
                WarnOfCollapse(),
                speed,
                *(pages if is_chief else ()),
                SaveCheckpoints(manager, train.checkpoint_every_steps),
                sigterm,
                *callbacks,
            ],
        )
        manager.check_saved()
    if is_chief:
        for page in pages:
            if isinstance(page, watching.Profile) and not page.done:
                print(
                    f"No profile: this run was at its end before step"
                    f" {page.start} of its own.",
                    flush=True,
                )
        print(speed.report(_STARTED), flush=True)
    if sigterm.stopped and model.steps_done < train.steps:
        raise Preempted(
            f"SIGTERM came; saved step {model.steps_done} of {train.steps}."
            " The same command goes on from there."
        )
    return model


def _claim(stack, config, workdir, allow_new_data):
    from vivi_keras import workdirs
    from vivi_keras.training import streams

    stack.enter_context(workdirs.locked(workdir))
    workdirs.claim_workdir(
        workdir, config, streams.data_fingerprint(config), allow_new_data
    )
    (workdir / "checkpoints").mkdir(exist_ok=True)


def _train(model, batches, train, manager, steps_per_execution, **fit):
    """Calls `fit` from the last checkpoint to the end, or until SIGTERM."""
    import tensorflow as tf

    from vivi_keras import checkpoints

    step = manager.restore()
    if step is None:
        step = 0
        if not train.steps:
            manager.save(wait=True)
    else:
        print(f"Going on from step {step} of {train.steps}.", flush=True)
    if fit["verbose"] is None:
        fit["verbose"] = 1 if sys.stdout.isatty() else 2
    every = train.log_every_steps
    # A checkpoint at the end of a row of metrics holds that row's sums.
    model.resumed = step % every != 0
    for start, stop in _spans(step, train):
        steps = min(every, stop - start)
        # As many as divide an epoch, so that none ends inside an execution.
        at_once = math.gcd(steps_per_execution, steps)
        if model.steps_per_execution != at_once:
            model.steps_per_execution = at_once
            model.train_function = None
        try:
            model.fit(
                batches(start, stop),
                initial_epoch=start // every,
                epochs=-(-stop // every),
                steps_per_epoch=steps,
                **fit,
            )
        except tf.errors.InvalidArgumentError as error:  # mostly a batch's
            step = model.steps_done
            if step:
                manager.save(wait=True)
            raise ValueError(
                f"Step {step + 1} failed; the last checkpoint:"
                f" {step or 'none'}. {checkpoints.reason(error)}"
            ) from error
        if model.stop_training:
            return


class Preempted(Exception):
    """Training was told to stop, and can go on later."""


def _is_chief(strategy):
    return strategy.extended.should_checkpoint


def _spans(step, train):
    """Parts of [step, train.steps) that `fit` can cut into equal epochs."""
    steps, every = train.steps, train.log_every_steps
    cuts = {step, min(steps, -(-step // every) * every), steps}
    cuts.add(max(step, steps // every * every))
    cuts = sorted(cuts)
    return list(zip(cuts, cuts[1:], strict=False)) if step < steps else []


def _pages(config, workdir, probe, probe_every_steps, profile_steps):
    """What the chief writes for its user; the logs are complete before."""
    from vivi_keras import callbacks, watching
    from vivi_keras.training import build, streams

    train, folder, pages = config.train, workdir / "tensorboard", []
    test_batches = streams.test_batches(config)
    if test_batches is not None:
        pages.append(
            callbacks.TestLabels(
                test_batches, train.test_every_steps, train.steps
            )
        )
    if probe is not None:
        from vivi_keras.training import probes

        data = probes.ProbeData(probe, config.data.image_size)
        every = probe_every_steps
        if every is None:
            every = train.checkpoint_every_steps
        names = [data.class_names[label] for label in data.labels]
        pages += [
            probes.Probe(data, every, train.steps),
            watching.WriteProjector(folder, data.images, names),
        ]
    if profile_steps is not None:
        pages.append(watching.Profile(folder / "profile", *profile_steps))
    return [
        *pages,
        callbacks.WriteMetrics(workdir / "metrics.csv"),
        watching.Summaries(str(folder)),
        watching.ShowViews(
            folder / "views", lambda step: build.build_views(config, step)
        ),
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
        if not value:
            raise app.UsageError(f"--{name} is missing.")
    from vivi_keras.training import streams
    from vivi_keras.training.configs import ranges

    try:
        ranges.check_numbers(_CONFIG.value)
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
            xla=_XLA.value,
            steps_per_execution=_STEPS_PER_EXECUTION.value,
            prefetch=_PREFETCH.value,
            probe=_PROBE.value,
            probe_every_steps=_PROBE_EVERY_STEPS.value,
            profile_steps=_two_steps(_PROFILE_STEPS.value),
        )
        return
    except Preempted as error:
        said, status = str(error), PREEMPTED_STATUS
    except KeyboardInterrupt:
        said = "stopped; the same command goes on from the last checkpoint"
        status = 130
    commands.end("vivi-pretrain", said, status)


def _two_steps(words):
    """(start, stop) of the flag --profile_steps."""
    if words is None:
        return None
    try:
        start, stop = map(int, words)
    except ValueError:
        raise ValueError(
            "--profile_steps must be two step numbers, such as 10,20."
            f" Got: {','.join(words)}"
        ) from None
    return start, stop


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


def run():
    """The console script vivi-pretrain."""
    try:
        sys.argv = named(sys.argv)  # where config_flags reads it, too
    except app.UsageError as error:
        sys.exit(f"vivi-pretrain: {error}")
    commands.run("vivi-pretrain", main)


if __name__ == "__main__":
    run()
