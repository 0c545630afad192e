"""Builds the model and the encoder that a config describes."""

import json
import pathlib
import warnings

import keras

from vivi_keras.models import adapt, encoders
from vivi_keras.models.heads import KERNEL_DECAY
from vivi_keras.objective import Objective, make_level
from vivi_keras.runs import batches, best, checkpoints, config_checks
from vivi_keras.runs import workdir as workdir_lib
from vivi_keras.trainer.model import ViviModel
from vivi_keras.trainer.optimizers import build_optimizer

# Keys of config.model that define the encoder's network.
NETWORK_KEYS = ("encoder", "width", "units", "norm", "pool")


def build_encoder(config, load_start=True) -> keras.Model:
    """Builds a config's encoder.

    Args:
        config: ConfigDict of a row of the results.
        load_start: whether to load the weights that it starts from; without
            them all weights are random, from the config's seed.
    Raises: ValueError: an unknown encoder, or weights that do not fit it.
        FileNotFoundError, ConnectionError or packages.Unavailable: the
        weights are not available. ImportError: keras_hub is not installed.
    """
    keras.utils.set_random_seed(config.seed)
    network, weights = find_start(config)["network"], config.model.weights
    run = _run_of_start(config)
    name = network["encoder"]
    if name.startswith("module:"):
        weights = encoders.AUTO  # a module is built with its weights
    elif not load_start or run is not None:
        weights = encoders.NONE
    encoder = encoders.make_encoder(
        name,
        weights,
        image_size=config.data.image_size,
        weight_decay=_kernel_decay(config),
        pool=network["pool"],
        width=network["width"],
        units=tuple(network["units"]),
        norm=network["norm"],
    )
    if run is not None and load_start:
        start_from(encoder, run)
    return encoder


def _run_of_start(config):
    """The folder of the run that the encoder comes from, or None."""
    kind, _, folder = config.model.encoder.partition(":")
    if config.model.init:
        warnings.warn(
            "config.model.init is deprecated: use"
            f" config.model.encoder='run:{config.model.init}', which also"
            " takes width, units and norm from that run.",
            DeprecationWarning,
            stacklevel=3,
        )
        if kind == "run":
            raise ValueError(
                "config.model.init and config.model.encoder='run:...' both"
                " name a run to start from; use the encoder alone."
            )
        return config.model.init
    return folder if kind == "run" else None


def starts_pretrained(config) -> bool:
    """Whether a run on videos starts from pretrained weights."""
    model = config.model
    if model.encoder == "resnet50v2" and model.weights == "auto":
        return False
    return model.weights != "none" and "videos" in batches.streams(config)


def find_start(config) -> dict:
    """Which network a config's encoder is, and where its weights come from.

    Returns: dict of "network": the NETWORK_KEYS of `config.model` or, for an
        encoder "run:WORKDIR", those of the other run; and "about": facts for a
        card (see `encoders.describe`).
    Raises: FileNotFoundError: the other run or its checkpoint is missing.
        ValueError: the config asks for weights, but a run gives them.
    """
    model, run = config.model, _run_of_start(config)
    network = {key: model[key] for key in NETWORK_KEYS}
    network["units"] = list(network["units"])
    if run is None:
        about = encoders.describe(model.encoder, model.weights)
        return {"network": network, "about": about}
    if model.weights != encoders.AUTO:
        raise ValueError(
            f"model.weights must be {encoders.AUTO!r} for an encoder that"
            f" comes from a run. Got: {model.weights!r}"
        )
    if model.init and not workdir_lib.has_config(run):
        # A run that began before starts were recorded.
        about = {"encoder": model.encoder, "weights": f"run {run}"}
        return {"network": network, "about": {**about, "licence": ""}}
    other = workdir_lib.read_config(run)
    there = workdir_lib.read_start(run) or find_start(other)
    steps = checkpoints.saved_steps(run)
    if not steps:
        raise FileNotFoundError(f"{run} has no checkpoint to start from.")
    if not model.init:
        network = there["network"]
    step = steps[-1]
    if best.has_best(run):
        step = best.read(run)[0]["step"]
    name, before = pathlib.Path(run).name, there["about"]
    return {
        "network": network,
        "about": {
            "encoder": before["encoder"],
            "weights": f"run {name} ({other.name}, {step} steps), which"
            f" began with {before['weights']}",
            "licence": before["licence"],
        },
    }


def _kernel_decay(config):
    """`weight_decay` of the kernels of encoder and heads.

    If the optimizer has its own decay, the regularisers only mark which
    variables decay; `ViviModel` then removes the regularisers.
    """
    if config.optimizer.name in ("adamw", "lars"):
        return KERNEL_DECAY
    return config.model.weight_decay


def build_model(
    config, skip_nonfinite=False, load_start=True, **options
) -> ViviModel:
    """Builds and compiles the model of a config.

    Args:
        config: ConfigDict of a row of the results.
        skip_nonfinite: see `ViviModel`.
        load_start: see `build_encoder`.
        **options: further arguments of `compile`, such as `jit_compile`.
    Raises: ValueError: an unknown level, argument, optimizer or schedule, a
        number out of range, or clips that do not suit a level.
    """
    config_checks.check_numbers(config)
    encoder = build_encoder(config, load_start)
    guard = _guard(config, encoder, load_start)
    objective = Objective(
        [
            make_level(kind, **arguments)
            for kind, arguments in config.objective.items()
            if arguments.weight != 0
        ],
        weight_decay=_kernel_decay(config),
    )
    data, kinds = config.data, batches.streams(config)
    clip = (0, 0, data.images.copies)
    if "videos" in kinds:
        clip = (data.num_shots, data.frames_per_shot, data.copies)
    objective.validate(*clip, streams=kinds)
    model = ViviModel(
        encoder,
        objective,
        views=batches.none_if_none(data.views),
        image_views=batches.none_if_none(data.images.views),
        colour_strength=data.colour_strength,
        grey=data.grey,
        blur=data.blur,
        separate_passes=config.model.separate_passes,
        statistics=config.model.statistics,
        seed=config.seed,
        micro_batches=config.train.micro_batches,
        skip_nonfinite=skip_nonfinite,
        average_decay=config.train.average_decay,
        guard=guard,
    )
    model.compile(optimizer=build_optimizer(config), **options)
    return model


def _guard(config, encoder, load_start):
    """Limits the encoder's training; returns the guard of the step or None."""
    settings = config.adapt
    adapt.select_trainable(encoder, settings.trainable)
    if settings.freeze_statistics:
        adapt.freeze_statistics(encoder)
    start = None
    if settings.keep_close:
        start = build_encoder(config, load_start)
    guard = adapt.Guard(
        warmup_head_steps=settings.warmup_head_steps,
        layer_decay=settings.layer_decay,
        start=start,
        keep_close=settings.keep_close,
    )
    return None if guard == adapt.Guard() else guard


def element_spec(config) -> dict:
    """Shapes and dtypes of a config's batches, with any number of rows."""
    data, size = config.data, (config.data.image_size,) * 2
    spec, kinds = {}, batches.streams(config)
    if "videos" in kinds:
        shape = (None, data.num_shots, data.frames_per_shot)
        copies = (data.copies,) if data.copies > 1 else ()
        spec = {
            "frames": ((*shape, *copies, *size, 3), "uint8"),
            "shot_mask": (shape[:2], "bool"),
            "video_id": ((None,), "int64"),
        }
        if data.duplicates:
            spec["duplicates"] = (shape[:2], "int64")
    if "images" in kinds:
        copies = (data.images.copies,) if data.images.copies > 1 else ()
        spec["image"] = ((None, *copies, *size, 3), "uint8")
        spec["label"] = ((None,), "int64")
    return {
        name: keras.KerasTensor(shape, dtype)
        for name, (shape, dtype) in spec.items()
    }


def build_views(config, step):
    """The augmented images of a step: float [B, N, H, W, 3] in [0, 1]."""
    (batch,) = batches.build_batches(config, step, num_steps=1)
    images, policy = batch.get("frames"), config.data.views
    if images is None:
        images, policy = batch["image"], config.data.images.views
    size = images.shape[-3:]
    views = _changed(
        keras.ops.reshape(images, (-1, *size)), policy, config, step
    )
    return keras.ops.reshape(views, (images.shape[0], -1, *size))


def _changed(images, policy, config, step):
    """uint8 [N, H, W, 3] -> float32, changed as in a step of a config."""
    from vivi_keras.data import colour_views

    policy = batches.none_if_none(policy)
    if policy is None:
        return colour_views(images, 0, None)
    data = config.data
    return colour_views(
        images,
        (config.seed, step),
        policy,
        strength=data.colour_strength,
        grey=data.grey,
        blur=data.blur,
    )


def restore_encoder(workdir, ema=False):
    """The encoder of a run, its best one if saved; see `restore_model`."""
    model, metadata = restore_model(workdir, ema)
    return model.encoder, metadata


def restore_model(workdir, ema=False, step=None):
    """The model of a run's last checkpoint, with the encoder to export.

    Args:
        workdir: folder of a `vivi-pretrain` run.
        ema: use the moving averages of the encoder's variables.
        step: which encoder: "last", "best" for the one that the run saved
            (`best.KeepBest`), or None for the best if there is one.
    Returns: (ViviModel, metadata dict for `export_encoder`); the export
        takes the model's `encoder` and `objective.classifier`.
    Raises: FileNotFoundError: no config or no checkpoint there, or no best
        step. ValueError: the run has no moving averages.
    """
    config = workdir_lib.read_config(workdir)
    if step is None:
        step = "best" if best.has_best(workdir) and not ema else "last"
    if ema and not config.train.average_decay:
        raise ValueError(
            f"The run must keep moving averages. Got: {workdir}, which keeps"
            " none. Train with --config.train.average_decay=0.999 or the like."
        )
    start = workdir_lib.read_start(workdir) or find_start(config)
    model = build_model(
        with_network(config, start["network"]), load_start=False
    )
    model.build_from(element_spec(config))
    manager = checkpoints.CheckpointManager(model, workdir)
    last_step = manager.restore()
    if last_step is None:
        raise FileNotFoundError(
            f"{manager.folder} must have a checkpoint. Got: none"
        )
    if ema:
        for variable, average in zip(
            model.encoder.variables, model.averages, strict=True
        ):
            variable.assign(average)
    adapt.release(model.encoder)
    chosen, steps = {}, last_step
    if step == "best":
        record = best.restore(model.encoder, workdir)
        chosen = {"chosen_by": record, "last_step": last_step}
        steps = record["step"]
    return model, {
        **chosen,
        "row": config.name,
        "config": json.loads(config.to_json()),
        "seed": config.seed,
        "steps": steps,
        "image_size": [config.data.image_size] * 2,
        "minimum_size": encoders.minimum_size(start["network"]["encoder"]),
        "start": start["about"],
        "training_data": batches.training_data(
            config, workdir_lib.read_fingerprint(workdir)
        ),
    }


def with_network(config, network):
    """A copy of a config with this network as its encoder, without a start."""
    config = config.copy_and_resolve_references()
    config.model.update({**network, "init": "", "weights": encoders.AUTO})
    return config


def start_from(encoder, workdir) -> None:
    """Loads another run's encoder weights, the best ones if saved.

    Raises: ValueError: that run's encoder has other weight shapes.
    """
    other, _ = restore_encoder(workdir)
    mine, theirs = encoder.weights, other.weights
    here, there = ([tuple(w.shape) for w in x] for x in (mine, theirs))
    if here != there:
        raise ValueError(
            f"The run of model.init={str(workdir)!r} must have the same model."
            f" Got: {len(there)} weights of"
            f" {sum(w.size for w in other.get_weights()):,} numbers, not"
            f" {len(here)} of {sum(w.size for w in encoder.get_weights()):,}"
        )
    for variable, value in zip(mine, theirs, strict=True):
        variable.assign(value)


def untrained_encoder(config, num_steps) -> keras.Model:
    """The encoder before training, with batch norm adapted to the data.

    Args:
        config: ConfigDict of a row of the results.
        num_steps: int, number of training batches used to adapt it.
    """
    encoder, size = build_encoder(config), config.data.image_size
    for step, batch in enumerate(
        batches.build_batches(config, num_steps=num_steps)
    ):
        frames = keras.ops.reshape(batch["frames"], (-1, size, size, 3))
        encoder(
            _changed(frames, config.data.views, config, step), training=True
        )
    return encoder
