"""What a level gets, what it gives, and the layer that all levels are."""

import dataclasses
import math
from typing import Any

from keras import layers, ops

from vivi_keras.levels.replicas import LocalReplicas, Tensor

NEGATIVES = ("global", "replica")


@dataclasses.dataclass(frozen=True, repr=False)
class LevelInputs:
    """What one replica's part of a batch gives to the levels.

    Axes: B videos and M labelled images of this replica, S shots a clip, F
    frames a shot, C copies (independently augmented views) of each frame, D
    features. All are static except, where the backend allows it, B and M.

    Attributes:
        features: float32 [B, S, F, C, D], the encoder's features of the
            upright views; [0, 0, 0, C, D] in a batch of images alone. Rows
            of padded shots hold whatever the encoder gives for their pixels;
            no level lets them count.
        shot_mask: bool [B, S], True for a real shot. Padding comes last.
        video_id: int [B]. Rows with one id come from one video.
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
    """

    features: Tensor
    shot_mask: Tensor
    video_id: Tensor
    replicas: Any = dataclasses.field(default_factory=LocalReplicas)
    rotated: Tensor | None = None
    image_features: Tensor | None = None
    image_rotated: Tensor | None = None
    labels: Tensor | None = None

    def __repr__(self):
        # Keras puts its arguments into errors: shapes tell, values drown.
        parts = [
            f"{field.name}={tuple(value.shape)}"
            for field in dataclasses.fields(self)
            if hasattr(value := getattr(self, field.name), "shape")
        ]
        return f"LevelInputs({', '.join(parts)})"


@dataclasses.dataclass(frozen=True)
class LevelOutput:
    """What a level makes of one replica's part of a batch.

    The level's loss is sum(losses * weights) / sum(weights), both sums over
    all replicas; it is 0 where the weights' sum is 0.

    Attributes:
        losses: float32 [N], finite, one for each example of the level.
        weights: float32 [N], >= 0, without gradient; 0 for padding.
        metrics: name -> (value, weight), float scalars without gradient; the
            metric of a batch is the mean over replicas by these weights.
    """

    losses: Tensor
    weights: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]]


class Level(layers.Layer):
    """One part of the objective: a head on the features, and its loss.

    A subclass makes its sublayers in `__init__` (Keras builds them on first
    use), implements `call(inputs, training=None) -> LevelOutput` and
    `get_config`, and may reject clips it cannot work on in `check`.

    Args:
        weight: factor of this level's loss in the sum, >= 0.
        name: prefix of the level's loss and metrics.
        warmup_steps: the weight grows linearly from 0 over the first so many
            steps; 0 for a constant weight.
    Attributes:
        streams: what the level can learn from, "videos", "images" or both;
            a batch must have at least one of them.
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
        """The weight of the loss in a step, counted from 0."""
        if self.warmup_steps == 0:
            return self.weight
        done = ops.cast(step, "float32") + 1.0
        return self.weight * ops.minimum(1.0, done / self.warmup_steps)

    def check(self, num_shots: int, frames_per_shot: int, copies: int):
        """Raises ValueError if the level cannot work on such clips."""

    def build(self, features_shape):
        """Checks [B, S, F, C, D], the shape of `LevelInputs.features`."""
        if len(features_shape) != 5:
            raise ValueError(
                f"Level {self.name!r} expects features [B, S, F, C, D]."
                f" Got shape: {tuple(features_shape)}"
            )
        self.check(*features_shape[1:4])

    def __call__(self, inputs: LevelInputs, training: bool | None = None):
        if not self.built:
            self.build(tuple(inputs.features.shape))
        return super().__call__(inputs, training=training)

    def require(self, fact: bool, expected: str, got):
        """Raises ValueError in this level's name unless `fact`."""
        if not fact:
            raise ValueError(
                f"Level {self.name!r} expects {expected}. Got: {got}"
            )

    def get_config(self):
        return {
            **super().get_config(),
            "weight": self.weight,
            "warmup_steps": self.warmup_steps,
        }


def share(facts, weights):
    """Weighted share of true facts as a metric: (value, weight)."""
    weights = ops.stop_gradient(weights)
    total = ops.sum(weights)
    right = ops.sum(ops.cast(facts, weights.dtype) * weights)
    return right / ops.maximum(total, 1), total
