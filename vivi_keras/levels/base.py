"""The inputs and outputs of a level, and the base layer of all levels."""

import dataclasses
import math
from typing import Any

from keras import layers, ops

from vivi_keras.levels.replicas import LocalReplicas, Tensor

NEGATIVES = ("global", "replica")


@dataclasses.dataclass(frozen=True, repr=False)
class LevelInputs:
    """The inputs of the levels, from one replica's part of a batch.

    Axes: B videos and M labelled images of this replica, S shots per clip, F
    frames per shot, C copies (independently augmented views) of each frame, D
    features. All are static, except B and M if the backend allows it.

    Attributes:
        features: float32 [B, S, F, C, D], the encoder's features of the
            upright views; [0, 0, 0, C, D] in a batch without videos. Rows
            of padded shots have the encoder's features of their pixels;
            every level ignores them.
        shot_mask: bool [B, S], True for a real shot. Padding comes last.
        video_id: int [B]. Rows with the same id come from the same video.
        replicas: a `LocalReplicas` or an object with its attributes.
        rotated: float32 [B, S, F, C, 4, D], features of each view turned by
            0, 90, 180 and 270 degrees; turn 0 is `features`. None unless
            "rotation" is in `objective.image_transforms`.
        image_features: float32 [M, C_image, D], features of the labelled
            images' views; None without labelled images.
        image_rotated: float32 [M, C_image, 4, D]; None unless there are both
            labelled images and rotations.
        labels: int [M] in [0, num_classes), the images' classes, or -1 for
            an image without a label; None without images.
        duplicates: int [B, S], the same number >= 0 for shots that show the
            same footage, -1 for all others. Such shots of different videos are
            not negatives of each other. None if duplicates are not known.
        step: int scalar, the number of steps before this one.
    """

    features: Tensor
    shot_mask: Tensor
    video_id: Tensor
    replicas: Any = dataclasses.field(default_factory=LocalReplicas)
    rotated: Tensor | None = None
    image_features: Tensor | None = None
    image_rotated: Tensor | None = None
    labels: Tensor | None = None
    duplicates: Tensor | None = None
    step: Tensor = 0

    def __repr__(self):
        # Keras puts arguments into error messages: show shapes, not values.
        parts = [
            f"{field.name}={tuple(value.shape)}"
            for field in dataclasses.fields(self)
            if hasattr(value := getattr(self, field.name), "shape")
        ]
        return f"LevelInputs({', '.join(parts)})"


@dataclasses.dataclass(frozen=True)
class LevelOutput:
    """The outputs of a level for one replica's part of a batch.

    The level's loss is sum(losses * weights) / sum(weights), both sums over
    all replicas; it is 0 if the sum of the weights is 0.

    Attributes:
        losses: float32 [N], finite, one for each example of the level.
        weights: float32 [N], >= 0, without gradient; 0 for padding.
        metrics: name -> (value, weight), float scalars without gradient; the
            metric of a batch is the weighted mean over replicas.
    """

    losses: Tensor
    weights: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]]


class Level(layers.Layer):
    """One part of the objective: a head on the features, and its loss.

    A subclass creates its sublayers in `__init__` (Keras builds them on first
    use) and implements `call(inputs, training=None) -> LevelOutput` and
    `get_config`. Its `check` may reject clips of unsuitable shape.

    Args:
        weight: factor of this level's loss in the total loss, >= 0.
        name: prefix of the level's loss and metrics.
        warmup_steps: int, number of first steps over which the weight grows
            linearly to its full value; 0 for a constant weight.
    Attributes:
        streams: the data that the level can use, "videos", "images" or both;
            a batch must have at least one of them.
        image_transforms: views that the level needs beside the upright ones,
            such as "rotation".
    """

    image_transforms: tuple[str, ...] = ()
    streams: tuple[str, ...] = ("videos",)

    def __init__(
        self,
        weight: float = 1.0,
        name: str | None = None,
        warmup_steps: int = 0,
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if not 0 <= weight < math.inf:
            raise ValueError(
                f"The weight of level {self.name!r} must be finite and >= 0."
                f" Got: {weight}"
            )
        self.require(warmup_steps >= 0, "warmup_steps >= 0", warmup_steps)
        self.weight = weight
        self.warmup_steps = warmup_steps
        self._allow_non_tensor_positional_args = True  # LevelInputs
        self._convert_input_args = False

    def weight_at(self, step: Tensor) -> Tensor | float:
        """The weight of the loss in a step; steps count from 0."""
        if self.warmup_steps == 0:
            return self.weight
        done = ops.cast(step, "float32") + 1.0
        return self.weight * ops.minimum(1.0, done / self.warmup_steps)

    def check(self, num_shots: int, frames_per_shot: int, copies: int):
        """Raises ValueError if the level cannot use clips of this shape."""

    def build(self, features_shape):
        """Checks the shape of `LevelInputs.features`, [B, S, F, C, D]."""
        if len(features_shape) != 5:
            raise ValueError(
                f"features of level {self.name!r} must be [B, S, F, C, D]. Got:"
                f" shape {tuple(features_shape)}"
            )
        self.check(*features_shape[1:4])

    def __call__(self, inputs: LevelInputs, training: bool | None = None):
        if not self.built:
            self.build(tuple(inputs.features.shape))
        return super().__call__(inputs, training=training)

    def require(self, fact: bool, expected: str, got):
        """Raises ValueError, naming this level, unless `fact` is true."""
        if not fact:
            raise ValueError(
                f"Level {self.name!r} must have {expected}. Got: {got}"
            )

    def get_config(self):
        return {
            **super().get_config(),
            "weight": self.weight,
            "warmup_steps": self.warmup_steps,
        }


def same_footage(duplicates, other_duplicates, owner, other_owner):
    """True for near duplicates of different videos, which are not negatives.

    Args:
        duplicates: int [..., N], see `LevelInputs`; other_duplicates: int
            [..., M].
        owner: int [N], the video of each; other_owner: int [M].
    Returns: bool [..., N, M].
    """
    same = duplicates[..., :, None] == other_duplicates[..., None, :]
    known = duplicates[..., :, None] >= 0
    other_video = owner[:, None] != other_owner[None, :]
    return ops.logical_and(ops.logical_and(same, known), other_video)


def share(facts, weights):
    """Weighted share of true values in `facts`, as (value, weight)."""
    weights = ops.stop_gradient(weights)
    total = ops.sum(weights)
    right = ops.sum(ops.cast(facts, weights.dtype) * weights)
    return right / ops.maximum(total, 1), total
