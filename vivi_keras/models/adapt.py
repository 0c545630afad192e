"""Limits how far and how fast training changes a pretrained encoder."""

import dataclasses
import functools
import re

import keras
from keras import ops

# A block's name inside a variable's path, such as "stage2_unit1",
# "conv3_block2", "block4a", "transformer_block_5" or "layers_2".
_BLOCK = re.compile(
    r"(?:(?:conv|stage|stack)_?\d+_)?"
    r"(?:expanded_conv|unit|block|layers?|stage|conv_[dp]w)_?\d+[a-z]?(?=[_/])"
)
_NORM, _BIAS = ("gamma", "beta"), ("bias", "beta")
TRAINABLE = "all, last:N (blocks), norm or bias"


def blocks(encoder) -> list:
    """The trainable variables of an encoder by block, from input to output.

    Blocks are found by the names of layers. Variables before the first block
    are a block of their own; those between two blocks belong to the earlier
    one. In a network without such names, each layer is a block.

    Returns: list of lists of variables.
    """
    found, place = {}, ""
    names = [_BLOCK.search(v.path) for v in encoder.trainable_variables]
    for variable, name in zip(encoder.trainable_variables, names, strict=True):
        if name is not None:
            place = variable.path[: name.end()]
        elif not any(names):
            place = variable.path.rpartition("/")[0]
        found.setdefault(place, []).append(variable)
    return list(found.values())


def select_trainable(encoder, trainable) -> None:
    """Makes only some variables of an encoder trainable.

    Args:
        encoder: built keras.Model or layer.
        trainable: "all"; "last:N", the last N blocks; "norm", scale and
            shift of norm layers; "bias", biases and shifts of norm layers.
    Raises: ValueError: an unknown value, or no variable would be trainable.
    """
    kind, _, number = trainable.partition(":")
    known = encoder.trainable_variables
    if trainable == "all":
        kept = known
    elif trainable in ("norm", "bias"):
        ends = _NORM if trainable == "norm" else _BIAS
        kept = [v for v in known if v.name.endswith(ends)]
    elif kind == "last" and number.isdigit() and int(number) >= 1:
        parts = blocks(encoder)
        if int(number) > len(parts):
            raise ValueError(
                f"adapt.trainable={trainable!r}: {encoder.name} has only"
                f" {len(parts)} blocks."
            )
        kept = [v for part in parts[-int(number) :] for v in part]
    else:
        raise ValueError(
            f"adapt.trainable must be {TRAINABLE}. Got: {trainable!r}"
        )
    if not kept:
        raise ValueError(
            f"adapt.trainable={trainable!r} leaves nothing of {encoder.name}"
            " to train."
        )
    ids = {id(v) for v in kept}
    # A function: Keras would count the variables of a list as more weights.
    encoder.release_variables = functools.partial(_set_trainable, known)
    for variable in known:
        variable.trainable = id(variable) in ids


def _set_trainable(variables):
    for variable in variables:
        variable.trainable = True


def freeze_statistics(encoder) -> None:
    """Makes batch norm use its moving averages, unchanged, in training.

    Scale and shift are still trained. A module (`HubEncoder`) is then called in
    inference mode.
    """
    from vivi_keras.models.hub import HubEncoder

    for layer in encoder._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization | HubEncoder):
            layer.call = functools.partial(_infer, type(layer).call, layer)


def _infer(call, layer, inputs, training=None, **kwargs):
    return call(layer, inputs, training=False, **kwargs)


def release(encoder) -> None:
    """Undoes `select_trainable` and `freeze_statistics`, for an export."""
    getattr(encoder, "release_variables", lambda: None)()
    for layer in encoder._flatten_layers():
        if isinstance(layer.__dict__.get("call"), functools.partial):
            del layer.call


@dataclasses.dataclass
class Guard:
    """Limits on the changes of an encoder during training.

    Attributes:
        warmup_head_steps: int, number of first steps in which only the heads
            are trained; the encoder does not change.
        layer_decay: float in (0, 1]; the updates of the last block are scaled
            by it, those of the block before by its square, and so on.
        start: a second encoder with the weights before training, or None.
        keep_close: float >= 0, weight of the mean cosine distance between
            the features of a view by the encoder and by `start`.
    """

    warmup_head_steps: int = 0
    layer_decay: float = 1.0
    start: object = None
    keep_close: float = 0.0

    def before(self, encoder):
        """Copies the variables whose changes `after` limits."""
        variables = []
        if self.warmup_head_steps:
            variables = encoder.variables
        elif self.layer_decay != 1:
            variables = encoder.trainable_variables
        return [(v, ops.copy(v.value)) for v in variables]

    def after(self, encoder, step, kept) -> None:
        """Reverts the part of a step's changes that exceeds the limits.

        Args:
            encoder: the trained encoder.
            step: number of steps before this one.
            kept: what `before` returned.
        """
        parts = blocks(encoder) if self.layer_decay != 1 else []
        factors = {
            id(variable): self.layer_decay ** (len(parts) - index)
            for index, part in enumerate(parts)
            for variable in part
        }
        for variable, old in kept:
            new = variable.value
            if id(variable) in factors:
                share = ops.cast(factors[id(variable)], variable.dtype)
                new = old + share * (new - old)
            if self.warmup_head_steps:
                new = ops.where(step < self.warmup_head_steps, old, new)
            variable.assign(new)

    def distances(self, features, views):
        """Cosine distances of features to those of the encoder `start`.

        Args:
            features: [N, D], of the encoder.
            views: list of images [n, H, W, 3], N in all.
        Returns: float32 [N], in [0, 2].
        """
        start = [self.start(rows, training=False) for rows in views]
        start = ops.stop_gradient(ops.concatenate(start))
        both = [
            ops.normalize(ops.cast(x, "float32"), axis=-1)
            for x in (features, start)
        ]
        return 1.0 - ops.sum(both[0] * both[1], axis=-1)
