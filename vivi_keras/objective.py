"""The objective: a weighted sum of the losses of several levels."""

import inspect
import math

import keras
from keras import layers, ops, regularizers

from vivi_keras.checks import check_choice
from vivi_keras.levels import (
    FrameExemplar,
    Level,
    LevelInputs,
    LevelOutput,
    LocalReplicas,
    Rotation,
    ShotExemplar,
    ShotOrder,
    Supervised,
    VideoInfoNCE,
)
from vivi_keras.models import heads

__all__ = [
    "LEVELS",
    "FrameExemplar",
    "Level",
    "LevelInputs",
    "LevelOutput",
    "LocalReplicas",
    "Objective",
    "Rotation",
    "ShotExemplar",
    "ShotOrder",
    "Supervised",
    "VideoInfoNCE",
    "make_level",
]

# The kinds of levels that a config can name; custom levels can be added.
LEVELS = {
    "frame_exemplar": FrameExemplar,
    "rotation": Rotation,
    "shot_exemplar": ShotExemplar,
    "shot_order": ShotOrder,
    "video_info_nce": VideoInfoNCE,
    "supervised": Supervised,
}


def make_level(kind: str, **arguments) -> Level:
    """Makes a level from the name of its kind, as written in a config.

    Args:
        kind: a key of `LEVELS`.
        arguments: arguments of the level's class; `name` defaults to `kind`.
    Raises:
        ValueError: unknown kind or argument; suggests the nearest name.

    >>> make_level("video_info_nce", weight=0.5).weight
    0.5
    """
    check_choice("The kind of a level", kind, LEVELS)
    known = {
        name
        for cls in LEVELS[kind].__mro__
        if "__init__" in vars(cls) and issubclass(cls, Level)
        for name in inspect.signature(cls.__init__).parameters
    } - {"self", "kwargs"}
    for argument in arguments:
        check_choice(f"An argument of level {kind!r}", argument, sorted(known))
    return LEVELS[kind](**{"name": kind, **arguments})


@keras.saving.register_keras_serializable(package="vivi_keras")
class Objective(layers.Layer):
    """Runs levels on the features of a batch; their weighted sum is the loss.

    loss = sum over levels of level.weight * (sum of losses * weights) / (sum
    of weights), both sums over all replicas, + regularisers. The levels return
    losses and weights; the trainer computes the means over the replicas.

    A training step runs:
        images = objective.transform_images(images)     # [N, H, W, 3]
        features = encoder(images, training=True)       # [N, D]
        inputs = objective.level_inputs(features, ...)
        outputs = objective(inputs, training=True)

    Args:
        levels: at least one, each with its own name.
        name: name of the layer.
        weight_decay: float >= 0; each kernel w of the heads adds
            `weight_decay * sum(w ** 2) / 2` to `losses`, as in the encoder.

    >>> levels = [make_level("shot_exemplar"), make_level("video_info_nce")]
    >>> vivi_keras.Objective(levels).streams
    ('videos',)
    """

    def __init__(
        self,
        levels: list[Level],
        name: str = "objective",
        weight_decay: float = heads.KERNEL_DECAY,
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        # The input is a LevelInputs, not a tensor.
        self._allow_non_tensor_positional_args = True
        self._convert_input_args = False
        for level in levels:
            if not isinstance(level, Level):
                raise ValueError(
                    "levels must be a list of Level. Got: an item of type"
                    f" {type(level).__name__}: {level!r}"
                )
        names = [level.name for level in levels]
        if not names or len(set(names)) != len(names):
            raise ValueError(
                "levels must hold at least one level, each with its own name."
                f" Got: names {names}"
            )
        if not any(level.weight > 0 for level in levels):
            raise ValueError(
                "levels must hold one with weight > 0. Got: weights"
                f" { {level.name: level.weight for level in levels} }"
            )
        if not 0 <= weight_decay < math.inf:
            raise ValueError(
                f"weight_decay must be finite and >= 0. Got: {weight_decay}"
            )
        self.levels = list(levels)
        self.weight_decay = weight_decay

    @property
    def image_transforms(self) -> tuple[str, ...]:
        """Names of the transforms that images need: () or ("rotation",)."""
        names = {n for level in self.levels for n in level.image_transforms}
        return tuple(sorted(names))

    @property
    def num_turns(self) -> int:
        """Number of encoder rows per image: 4 with rotations, else 1."""
        return 4 if "rotation" in self.image_transforms else 1

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that the levels use: "images", "videos" or both."""
        return tuple(sorted({n for x in self.levels for n in x.streams}))

    @property
    def classifier(self):
        """The linear head of the supervised level, or None without one."""
        for level in self.levels:
            if isinstance(level, Supervised):
                return level.head
        return None

    def validate(
        self,
        num_shots: int,
        frames_per_shot: int,
        copies: int = 1,
        streams: tuple[str, ...] = ("images", "videos"),
    ) -> None:
        """Raises ValueError if a level cannot use batches of these sizes.

        Args:
            num_shots, frames_per_shot, copies: sizes of a clip. Without
                videos: 0, 0 and the number of views of an image.
            streams: the streams in a batch.
        """
        for level in self.levels:
            level.require(
                bool({*level.streams} & {*streams}),
                f"batches with {' or '.join(level.streams)}",
                " and ".join(streams),
            )
            level.check(num_shots, frames_per_shot, copies)

    def transform_images(self, images):
        """[N, H, W, 3] -> [N * T, H, W, 3], T = `num_turns`.

        Row n * T + t is image n turned by t quarter turns. Without rotations
        the images are returned unchanged.
        """
        if self.num_turns == 1:
            return images
        height, width = images.shape[-3:-1]
        if height != width:
            raise ValueError(
                "Images to rotate must be square, so that all turns have one"
                f" size. Got: height {height} and width {width}"
            )
        turned = [ops.rot90(images, k=t, axes=(1, 2)) for t in range(4)]
        stacked = ops.stack(turned, axis=1)  # [N, 4, H, W, 3]
        return ops.reshape(stacked, (-1, height, width, images.shape[-1]))

    def level_inputs(
        self,
        features,
        *,
        clip_shape: tuple[int, int, int, int],
        shot_mask,
        video_id,
        replicas=None,
        labels=None,
        image_copies: int = 1,
        duplicates=None,
        step=0,
    ) -> LevelInputs:
        """Reshapes the encoder's rows into the inputs of the levels.

        Args:
            features: float32 [N, D], the encoder's features of
                `transform_images(images)`, where `images` has first the B *
                S * F * C views of the clips, in this order of axes, and then,
                if there are labels, the M * image_copies views of the
                labelled images.
            clip_shape: (B, S, F, C); (0, 0, 0, C) without videos.
            shot_mask: bool [B, S].
            video_id: int [B].
            replicas: see `LocalReplicas`; None for one replica.
            labels: int [M], -1 for no label; None without images.
            image_copies: number of views of each labelled image.
            duplicates: int [B, S], see `LevelInputs`, or None.
            step: int scalar, the number of steps before this one.
        """
        turns, depth = self.num_turns, features.shape[-1]
        rows = ops.reshape(features, (-1, turns, depth))  # [images, T, D]
        videos, shots, frames, copies = clip_shape
        count = videos * shots * frames * copies
        clips = ops.reshape(rows[:count], (*clip_shape, turns, depth))
        images = None
        if labels is not None:
            images = ops.reshape(rows[count:], (-1, image_copies, turns, depth))
        turned = turns > 1
        return LevelInputs(
            features=clips[..., 0, :],
            shot_mask=shot_mask,
            video_id=video_id,
            replicas=LocalReplicas() if replicas is None else replicas,
            rotated=clips if turned else None,
            image_features=None if images is None else images[..., 0, :],
            image_rotated=images if turned else None,
            labels=labels,
            duplicates=duplicates,
            step=step,
        )

    def build(self, features_shape):
        """Creates all variables by running the levels once on zeros.

        Args:
            features_shape: (B or None, S, F, C, D); S = F = 0 without
                videos.
        """
        _, shots, frames, copies, depth = features_shape
        self.validate(shots, frames, copies)
        turns = self.num_turns
        videos = 2 if shots else 0
        count = videos * shots * frames * copies
        labels = ops.zeros((2,), "int32") if "images" in self.streams else None
        extra = 0 if labels is None else 2 * copies
        inputs = self.level_inputs(
            ops.zeros(((count + extra) * turns, depth)),
            clip_shape=(videos, shots, frames, copies),
            shot_mask=ops.ones((videos, shots), "bool"),
            video_id=ops.arange(videos),
            labels=labels,
            image_copies=copies,
        )
        for level in self.levels:
            level(inputs, training=False)
        decay = self.weight_decay
        for variable in self.trainable_variables:
            if variable.regularizer is not None:
                variable.regularizer = (
                    regularizers.L2(decay / 2) if decay else None
                )

    def __call__(self, inputs: LevelInputs, training: bool | None = None):
        if not self.built:
            self.build(tuple(inputs.features.shape))
        return super().__call__(inputs, training=training)

    def call(self, inputs, training=None) -> dict[str, LevelOutput]:
        """Dict: level name -> LevelOutput."""
        return {
            level.name: level(inputs, training=training)
            for level in self.levels
        }

    def get_config(self):
        levels = [keras.saving.serialize_keras_object(x) for x in self.levels]
        return {
            **super().get_config(),
            "levels": levels,
            "weight_decay": self.weight_decay,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["levels"] = [
            keras.saving.deserialize_keras_object(x, custom_objects)
            for x in config["levels"]
        ]
        return cls(**config)
