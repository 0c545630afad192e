"""A training run in a work directory, from its first to its last step."""

import contextlib
import dataclasses
import functools
import math
import pathlib
import time

from vivi_keras import checks

# Exit status (EX_TEMPFAIL) of a run that SIGTERM stopped: its step is saved,
# and the same command goes on from there.
PREEMPTED_STATUS = 75


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a run that do not change its config.

    Attributes:
        strategy: Devices to train on: one, mirrored, multiworker, tpu, or
            auto for a TPU, else all GPUs, else one device.
        allow_new_data: Resume even if the data set has changed.
        skip_nonfinite: Skip steps whose loss or gradient is not finite.
        xla: Compile the step with XLA: on, off, or auto (on with one GPU).
        steps_per_execution: Number of steps run before callbacks are called.
        prefetch: Number of batches prepared ahead of the step.
        probe: Score the encoder during training on a labelled set: digits,
            fashion_mnist, a TFDS name, a folder of class folders, or a CSV file
            of labelled ranges of the data set's videos.
        probe_every_steps: Number of steps between two scores; None for
            train.checkpoint_every_steps.
        keep_best: Save the encoder of the step that the probe scores best, for
            vivi-export; the start is step 0. Half of the probe's labels are
            held out to judge that encoder.
        profile_steps: START,STOP: steps to profile, counted from the step that
            this call starts at.
        data_service: HOST:PORT,...: servers that load the batches; each is a
            vivi-pretrain --serve_data=HOST:PORT.
    """

    strategy: str = "auto"
    allow_new_data: bool = False
    skip_nonfinite: bool = False
    xla: str = "auto"
    steps_per_execution: int = 1
    prefetch: int = 2
    probe: str | None = None
    probe_every_steps: int | None = None
    keep_best: bool = False
    profile_steps: tuple | None = None
    data_service: tuple | None = None

    def __post_init__(self):
        checks.check_choice("xla", self.xla, ("auto", "on", "off"))
        most = 1_000_000
        checks.check_whole(
            "steps_per_execution", self.steps_per_execution, 1, most
        )
        checks.check_whole("prefetch", self.prefetch, 0, most)
        if self.probe_every_steps is not None:
            checks.check_whole(
                "probe_every_steps", self.probe_every_steps, 1, 2**31
            )
        if self.keep_best and self.probe is None:
            raise ValueError(
                "probe must be given with keep_best: it says which step is"
                " best. Got: none"
            )
        if self.profile_steps is not None:
            try:
                start, stop = map(int, self.profile_steps)
            except (TypeError, ValueError):
                raise ValueError(
                    "profile_steps must be two step numbers, such as 10,20."
                    f" Got: {self.profile_steps}"
                ) from None
            object.__setattr__(self, "profile_steps", (start, stop))


def pretrain(config, workdir, verbose=None, callbacks=(), **options):
    """Trains the model of a config, or resumes from its last checkpoint.

    Args:
        config: ConfigDict from `training.configs.get_config`.
        workdir: folder of the run: config.json, checkpoints/, tensorboard/
            and metrics.csv.
        verbose: as for `keras.Model.fit`; by default a progress line on a
            terminal, else one line a minute.
        callbacks: more Keras callbacks.
        **options: fields of `Options`.
    Returns: the trained ViviModel.
    Raises: ValueError: bad settings, or a work directory that is in use or
        belongs to another run. Preempted: SIGTERM arrived; the step is
        saved. workers.WorkerLost: another worker has stopped.
    """
    started = time.monotonic()
    from vivi_keras.runs import batches as batches_lib
    from vivi_keras.runs import best, build, checkpoints, config_checks
    from vivi_keras.runs import workdir as workdir_lib
    from vivi_keras.trainer import (
        batch,
        strategies,
        tensorboard,
        workers,
    )
    from vivi_keras.trainer.callbacks import (
        MeasureSpeed,
        SaveCheckpoints,
        StopAtNonFinite,
        StopAtSigterm,
    )
    from vivi_keras.trainer.collapse import WarnOfCollapse

    options = Options(**options)
    config_checks.check_numbers(config)
    build_batches = batches_lib.build_batches
    if options.data_service:
        from vivi_keras.runs import data_service

        data_service.check_servers(options.data_service)
        build_batches = functools.partial(
            data_service.served_batches, options.data_service
        )
    workdir, train = pathlib.Path(workdir), config.train
    strategy = strategies.make_strategy(options.strategy)
    chief = is_chief(strategy)
    if chief:
        workdir_lib.check_writable(workdir)
    if best.has_best(workdir) and not options.keep_best:
        raise ValueError(
            f"keep_best must be given, because {best.FILE} in {workdir} holds"
            " the best step of this run. Got: False"
        )

    @functools.lru_cache(maxsize=1)
    def batches(start, stop):
        return strategies.distributed_batches(
            strategy,
            lambda shard: build_batches(config, start, stop - start, shard),
            options.prefetch,
        )

    with contextlib.ExitStack() as stack:
        # Before the work below, which may take long.
        sigterm = stack.enter_context(StopAtSigterm())
        batches_lib.name_labels(config)
        stack.enter_context(strategies.training_scope(strategy))
        stack.enter_context(strategies.precision_scope(train.precision))
        # These are probably the steps of the first call of `fit`. If so, the
        # batches opened here are used there (`batches` keeps the last ones).
        saved = checkpoints.saved_steps(workdir)
        start = workdir_lib.read_start(workdir) if saved else None
        if start is None:
            start = build.find_start(config)
        spans = _spans(saved[-1] if saved else 0, train)
        if spans:
            spec = batches(*spans[0]).element_spec
        else:  # no steps left
            spec = build.element_spec(config)
        spec = batch.replica_spec(spec, 1)
        with strategy.scope():
            # A checkpoint replaces the start's weights, whose files may be
            # gone by now.
            model = build.build_model(
                build.with_network(config, start["network"])
                if saved
                else config,
                options.skip_nonfinite,
                load_start=not saved,
                jit_compile={"on": True, "off": False, "auto": "auto"}[
                    options.xla
                ],
            )
        model.build_from(spec)
        speed = MeasureSpeed(batches_lib.images_per_step(config))
        log_callbacks = _log_callbacks(config, workdir, options)
        # Wrong settings raise an error above, before any folder is made.
        # So the work directory is claimed only now.
        if chief:
            _claim(stack, config, workdir, options.allow_new_data, start)
        manager = checkpoints.CheckpointManager(
            model,
            workdir,
            train.keep_checkpoints,
            train.keep_every_steps,
            writes=chief,
        )
        stack.enter_context(workers.raise_on_lost_worker(strategy))
        if not spans and chief and options.keep_best:
            # No step is left, but the labels must still be the same.
            for callback in log_callbacks:
                if getattr(callback, "keep", None) is not None:
                    callback.keep.open(model.encoder, train.steps)
        _train(
            model,
            batches,
            train,
            manager,
            options.steps_per_execution,
            verbose=verbose,
            callbacks=[
                StopAtNonFinite(manager),
                WarnOfCollapse(),
                speed,
                *(log_callbacks if chief else ()),
                SaveCheckpoints(manager, train.checkpoint_every_steps),
                sigterm,
                *callbacks,
            ],
        )
        manager.check_saved()
    if chief:
        for callback in log_callbacks:
            if isinstance(callback, tensorboard.Profile) and not callback.done:
                print(
                    f"No profile: the run ended before step {callback.start},"
                    " counted from its start.",
                    flush=True,
                )
        print(speed.report(started), flush=True)
        if best.has_best(workdir):
            print(best.summary(best.read(workdir)[0]), flush=True)
    if sigterm.stopped and model.steps_done < train.steps:
        raise Preempted(
            f"SIGTERM came; saved step {model.steps_done} of {train.steps}."
            " The same command goes on from there."
        )
    return model


def _claim(stack, config, workdir, allow_new_data, start):
    from vivi_keras import files
    from vivi_keras.runs import batches as batches_lib
    from vivi_keras.runs import workdir as workdir_lib

    stack.enter_context(files.locked(workdir))
    workdir_lib.claim_workdir(
        workdir,
        config,
        batches_lib.data_fingerprint(config),
        allow_new_data,
        start,
    )
    (workdir / "checkpoints").mkdir(exist_ok=True)


def _train(model, batches, train, manager, steps_per_execution, **fit):
    """Calls `fit` from the last checkpoint until the end or SIGTERM."""
    from vivi_keras.data import pipeline

    step = manager.restore()
    if step is None:
        step = 0
        if not train.steps:
            manager.save(wait=True)
    else:
        print(f"Going on from step {step} of {train.steps}.", flush=True)
    if fit["verbose"] is None:
        fit["verbose"] = "auto"
    every = train.log_every_steps
    # At the end of an epoch, the restored sums are already in metrics.csv.
    model.resumed = step % every != 0
    for start, stop in _spans(step, train):
        steps = min(every, stop - start)
        # A divisor of the epoch's steps: no epoch ends inside an execution.
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
        except pipeline.load_errors() as error:
            step = model.steps_done
            if step:
                manager.save(wait=True)
            raise ValueError(
                f"Step {step + 1} failed; the last checkpoint:"
                f" {step or 'none'}. {checks.reason(error)}"
            ) from error
        if model.stop_training:
            return


class Preempted(Exception):
    """Training was stopped by SIGTERM and can be resumed."""


def is_chief(strategy) -> bool:
    """Whether this process writes the run's files."""
    extended = getattr(strategy, "extended", None)  # JAX has one process
    return extended is None or extended.should_checkpoint


def _spans(step, train):
    """Splits [step, train.steps) into parts of equally long epochs."""
    steps, every = train.steps, train.log_every_steps
    cuts = {step, min(steps, -(-step // every) * every), steps}
    cuts.add(max(step, steps // every * every))
    cuts = sorted(cuts)
    return list(zip(cuts, cuts[1:], strict=False)) if step < steps else []


def _log_callbacks(config, workdir, options):
    """The chief's callbacks, which add to the logs and write them."""
    import keras

    from vivi_keras.runs import batches as batches_lib
    from vivi_keras.runs import best, build
    from vivi_keras.trainer import callbacks, tensorboard

    train, folder, log_callbacks = config.train, workdir / "tensorboard", []
    # Only TensorFlow writes event files.
    events = keras.backend.backend() == "tensorflow"
    test_batches = batches_lib.test_batches(config)
    if test_batches is not None:
        log_callbacks.append(
            callbacks.TestLabels(
                test_batches, train.test_every_steps, train.steps
            )
        )
    if options.probe is not None:
        from vivi_keras.trainer import probe as probe_lib

        data = probe_lib.ProbeData(
            options.probe,
            config.data.image_size,
            config.data.dataset,
            options.keep_best,
        )
        keep = None
        if options.keep_best:
            keep = best.KeepBest(
                workdir, config.adapt.start_shares, data.digest
            )
        every = options.probe_every_steps
        if every is None:
            every = train.checkpoint_every_steps
        names = [data.class_names[label] for label in data.labels]
        log_callbacks.append(probe_lib.Probe(data, every, train.steps, keep))
        if events:
            log_callbacks.append(
                tensorboard.WriteProjector(folder, data.images, names)
            )
    if build.starts_pretrained(config):
        from vivi_keras.trainer import probe as probe_lib

        log_callbacks.append(
            probe_lib.FeatureGeometry(
                config.data.dataset,
                config.data.image_size,
                train.checkpoint_every_steps,
                train.steps,
            )
        )
    if options.profile_steps is not None:
        log_callbacks.append(
            tensorboard.Profile(folder / "profile", *options.profile_steps)
        )
    log_callbacks.append(callbacks.WriteMetrics(workdir / "metrics.csv"))
    if not events:
        print(
            "No files for TensorBoard, which only a run with"
            " KERAS_BACKEND=tensorflow writes; metrics.csv has the values.",
            flush=True,
        )
        return log_callbacks
    return [
        *log_callbacks,
        tensorboard.Summaries(str(folder)),
        tensorboard.ShowViews(
            folder / "views", lambda step: build.build_views(config, step)
        ),
    ]
