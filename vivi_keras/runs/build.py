"""Builds the model and the encoder that a config describes."""

import json

import keras

from vivi_keras.models.heads import KERNEL_DECAY
from vivi_keras.models.resnet import ResNet50V2
from vivi_keras.objective import Objective, make_level
from vivi_keras.runs import batches, checkpoints, config_checks
from vivi_keras.runs import workdir as workdir_lib
from vivi_keras.trainer.model import ViviModel
from vivi_keras.trainer.optimizers import build_optimizer


def build_encoder(config) -> keras.Model:
    """Builds a config's encoder, with random weights from its seed."""
    keras.utils.set_random_seed(config.seed)
    model = config.model
    return ResNet50V2(
        width=model.width,
        units=tuple(model.units),
        norm=model.norm,
        weight_decay=_kernel_decay(config),
    )


def _kernel_decay(config):
    """`weight_decay` of the kernels of encoder and heads.

    If the optimizer has its own decay, regularisers only mark which
    variables decay; `ViviModel` then removes them.
    """
    if config.optimizer.name in ("adamw", "lars"):
        return KERNEL_DECAY
    return config.model.weight_decay


def build_model(config, skip_nonfinite=False, **options) -> ViviModel:
    """Builds and compiles the model of a config.

    Args:
        config: ConfigDict of a row of the results.
        skip_nonfinite: see `ViviModel`.
        **options: further arguments of `compile`, such as `jit_compile`.
    Raises: ValueError: an unknown level, argument, optimizer or schedule, a
        number out of range, or clips that do not suit a level.
    """
    config_checks.check_numbers(config)
    encoder = build_encoder(config)
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
        views=batches.named(data.views),
        image_views=batches.named(data.images.views),
        separate_passes=config.model.separate_passes,
        statistics=config.model.statistics,
        seed=config.seed,
        micro_batches=config.train.micro_batches,
        skip_nonfinite=skip_nonfinite,
        average_decay=config.train.average_decay,
    )
    model.compile(optimizer=build_optimizer(config), **options)
    return model


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
    from vivi_keras.data import colour_views

    (batch,) = batches.build_batches(config, step, num_steps=1)
    images, policy = batch.get("frames"), config.data.views
    if images is None:
        images, policy = batch["image"], config.data.images.views
    size = images.shape[-3:]
    views = colour_views(
        keras.ops.reshape(images, (-1, *size)),
        (config.seed, step),
        batches.named(policy),
    )
    return keras.ops.reshape(views, (images.shape[0], -1, *size))


def restore_encoder(workdir, ema=False):
    """The encoder of a run's last checkpoint; see `restore_model`."""
    model, metadata = restore_model(workdir, ema)
    return model.encoder, metadata


def restore_model(workdir, ema=False):
    """The model of a run's last checkpoint.

    Args:
        workdir: folder of a `vivi-pretrain` run.
        ema: use the moving averages of the encoder's variables.
    Returns: (ViviModel, metadata dict for `export_encoder`); the export
        takes the model's `encoder` and `objective.classifier`.
    Raises: FileNotFoundError: no config or no checkpoint there. ValueError:
        the run has no moving averages.
    """
    config = workdir_lib.read_config(workdir)
    if ema and not config.train.average_decay:
        raise ValueError(
            f"Expected a run that keeps moving averages; {workdir} does not:"
            " train with --config.train.average_decay=0.999 or the like."
        )
    model = build_model(config)
    model.build_from(element_spec(config))
    manager = checkpoints.CheckpointManager(model, workdir)
    step = manager.restore()
    if step is None:
        raise FileNotFoundError(
            f"Expected a checkpoint in {manager.folder}; found none."
        )
    if ema:
        for variable, average in zip(
            model.encoder.variables, model.averages, strict=True
        ):
            variable.assign(average)
    return model, {
        "row": config.name,
        "config": json.loads(config.to_json()),
        "seed": config.seed,
        "steps": step,
        "image_size": [config.data.image_size] * 2,
        "training_data": batches.training_data(
            config, workdir_lib.read_fingerprint(workdir)
        ),
    }


def start_from(encoder, workdir) -> None:
    """Loads the last encoder weights of another run into an encoder.

    Raises: ValueError: that run's encoder has other weight shapes.
    """
    other, _ = restore_encoder(workdir)
    mine, theirs = encoder.weights, other.weights
    here, there = ([tuple(w.shape) for w in x] for x in (mine, theirs))
    if here != there:
        raise ValueError(
            f"Expected the run of model.init={workdir!r} to have the same"
            f" model. Got: {len(there)} weights of"
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
    from vivi_keras.data import colour_views

    encoder, data = build_encoder(config), config.data
    size = data.image_size
    for step, batch in enumerate(
        batches.build_batches(config, num_steps=num_steps)
    ):
        frames = keras.ops.reshape(batch["frames"], (-1, size, size, 3))
        policy = batches.named(data.views)
        views = colour_views(frames, (config.seed, step), policy)
        encoder(views, training=True)
    return encoder
