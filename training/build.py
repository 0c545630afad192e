"""From a config to what it describes: model, batches, encoder."""

import json
import pathlib

import keras

from vivi_keras import checkpoints, workdirs
from vivi_keras.data import fingerprint, video_batches
from vivi_keras.models.resnet import ResNet50V2
from vivi_keras.objective import Objective, make_level
from vivi_keras.trainer import ViviModel
from vivi_keras.training.optimizers import build_optimizer


def build_encoder(config) -> keras.Model:
    """The frame encoder of a config, with fresh weights drawn by its seed."""
    keras.utils.set_random_seed(config.seed)
    model = config.model
    return ResNet50V2(
        width=model.width,
        units=tuple(model.units),
        norm=model.norm,
        weight_decay=model.weight_decay,
    )


def build_model(config, skip_nonfinite=False) -> ViviModel:
    """The compiled model of a config.

    Raises: ValueError: an unknown level, argument, optimizer or schedule, or
        clips on which a level cannot work.
    """
    encoder = build_encoder(config)
    objective = Objective(
        [
            make_level(kind, **arguments)
            for kind, arguments in config.objective.items()
        ]
    )
    data = config.data
    objective.validate(data.num_shots, data.frames_per_shot, data.copies)
    model = ViviModel(
        encoder,
        objective,
        views=data.views,
        seed=config.seed,
        skip_nonfinite=skip_nonfinite,
    )
    model.compile(optimizer=build_optimizer(config))
    return model


def build_batches(config, first_step=0, num_steps=None, shard=(0, 1)):
    """Batches of a config from `first_step` on; see `video_batches`."""
    data = config.data
    return video_batches(
        data.dataset,
        batch_size=data.batch_size,
        num_shots=data.num_shots,
        frames_per_shot=data.frames_per_shot,
        copies=None if data.copies == 1 else data.copies,
        image_size=data.image_size,
        crop_area=tuple(data.crop_area),
        seed=config.seed,
        first_step=first_step,
        num_steps=num_steps,
        shard=shard,
    )


def restore_encoder(workdir):
    """The encoder of a run's last checkpoint.

    Args:
        workdir: folder of a `vivi-pretrain` run.
    Returns: (encoder, metadata dict for `export_encoder`).
    Raises: FileNotFoundError: no config or no checkpoint there.
    """
    config = workdirs.read_config(workdir)
    model = build_model(config)
    data = config.data
    shape = (None, data.num_shots, data.frames_per_shot)
    if data.copies > 1:
        shape = (*shape, data.copies)
    size = (data.image_size, data.image_size, 3)
    model.build_from(
        {
            "frames": keras.KerasTensor((*shape, *size), "uint8"),
            "shot_mask": keras.KerasTensor(shape[:2], "bool"),
            "video_id": keras.KerasTensor((None,), "int64"),
        }
    )
    manager = checkpoints.CheckpointManager(model, workdir)
    step = manager.restore()
    if step is None:
        raise FileNotFoundError(
            f"Expected a checkpoint in {manager.folder}; found none."
        )
    return model.encoder, {
        "row": config.name,
        "config": json.loads(config.to_json()),
        "seed": config.seed,
        "steps": step,
        "image_size": [data.image_size, data.image_size],
        "training_data": {
            "name": pathlib.Path(data.dataset).name,
            "fingerprint": workdirs.read_fingerprint(workdir),
        },
    }


def untrained_encoder(config, num_steps) -> keras.Model:
    """The encoder before training, with batch norm adapted to the data.

    Args:
        config: of a row.
        num_steps: int, batches of the training data it sees.
    """
    from vivi_keras.data import colour_views

    encoder, data = build_encoder(config), config.data
    size = data.image_size
    for step, batch in enumerate(build_batches(config, num_steps=num_steps)):
        frames = keras.ops.reshape(batch["frames"], (-1, size, size, 3))
        views = colour_views(frames, (config.seed, step), data.views)
        encoder(views, training=True)
    return encoder


def data_fingerprint(config) -> str:
    """Identifies the data set of a config."""
    return fingerprint(config.data.dataset)
