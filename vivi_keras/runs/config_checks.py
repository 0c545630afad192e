"""Checks the ranges of the numbers in a config."""

import functools
import math
import operator

# Requirement -> function that checks a number, and the keys it applies to.
RULES = {
    ">= 0": (
        lambda value: value >= 0,
        "adapt.warmup_head_steps",
        "adapt.keep_close",
        "data.batch_size",
        "data.colour_strength",
        "data.min_gap_seconds",
        "data.max_gap_seconds",
        "data.images.batch_size",
        "data.images.unlabelled_batch_size",
        "model.weight_decay",
        "optimizer.clip_norm",
        "optimizer.weight_decay",
        "schedule.learning_rate",
        "schedule.base_batch_size",
        "schedule.warmup_steps",
        "train.steps",
        "train.keep_every_steps",
    ),
    "> 0": (
        lambda value: value > 0,
        "optimizer.trust",
        "schedule.factor",
    ),
    ">= 1": (
        lambda value: value >= 1,
        "train.micro_batches",
        "train.log_every_steps",
        "train.checkpoint_every_steps",
        "train.test_every_steps",
        "train.keep_checkpoints",
    ),
    "in [0, 1]": (lambda value: 0 <= value <= 1, "data.grey", "data.blur"),
    "in (0, 1]": (lambda value: 0 < value <= 1, "adapt.layer_decay"),
    "in [0, 1)": (
        lambda value: 0 <= value < 1,
        "optimizer.momentum",
        "train.average_decay",
    ),
    "in [0, 2**32)": (lambda value: 0 <= value < 2**32, "seed"),
}


def _raise_missing(name):
    raise ValueError(
        f"config.{name} is missing. A config must have every key of"
        " vivi_keras.training.configs.get_config('vivi_ex4')."
    ) from None


def check_numbers(config) -> None:
    """Raises ValueError if a number of the config is out of range."""
    for asked, (keeps, *names) in RULES.items():
        for name in names:
            try:
                value = functools.reduce(
                    operator.getitem, name.split("."), config
                )
            except (KeyError, TypeError):
                _raise_missing(name)
            if not (math.isfinite(value) and keeps(value)):
                raise ValueError(
                    f"config.{name} must be finite and {asked}. Got: {value}"
                )
    bounds = list(config.schedule.boundaries)
    if bounds != sorted({*bounds}) or any(bound <= 0 for bound in bounds):
        raise ValueError(
            "config.schedule.boundaries must be growing steps > 0."
            f" Got: {tuple(bounds)}"
        )
    if "start_shares" not in config.adapt:
        _raise_missing("adapt.start_shares")
    shares = config.adapt.start_shares
    if not isinstance(shares, (tuple, list)) or not all(
        type(share) is float and 0 < share < 1 for share in shares
    ):
        raise ValueError(
            "config.adapt.start_shares must be numbers in (0, 1), such as"
            f" (0.5,), or (). Got: {shares!r}"
        )
    level = config.objective.get("video_info_nce", {"weight": 0})
    if level["weight"] and config.data.batch_size == 1:
        raise ValueError(
            "config.data.batch_size must be >= 2 for level 'video_info_nce':"
            " the other videos of a batch are its negatives. Got: 1"
        )
