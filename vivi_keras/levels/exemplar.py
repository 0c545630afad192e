"""Exemplar levels: pull views of one frame or shot together."""

import keras
import numpy as np
from keras import ops

from vivi_keras import checks
from vivi_keras.data import sampling
from vivi_keras.levels import base
from vivi_keras.losses.embedding_metrics import embedding_metrics
from vivi_keras.losses.groups import at_least_float32
from vivi_keras.losses.info_nce import multi_positive_nce
from vivi_keras.losses.sigreg import sigreg
from vivi_keras.losses.triplet import semi_hard_pairs
from vivi_keras.models import heads

LOSSES = ("triplet", "nt_xent", "multi_positive_nce", "sigreg")
_DIRECTIONS = 4  # seed word: other random numbers than those of the views


class Exemplar(base.Level):
    """Pulls embeddings of one group together and pushes groups apart.

    Args:
        loss: "triplet" (semi-hard, [P]); "nt_xent", alias
            "multi_positive_nce" ([O]); or "sigreg" ([O]), as in LeJEPA: the
            squared distance to the mean of the group, plus the distance of
            all embeddings from a normal distribution, without negatives.
        margin: margin of the triplet loss.  [G] 0.5
        temperature: temperature of the softmax losses.  [O] 0.1
        head_units: size of the linear head's embeddings.  [G] 1000
        negatives: "global", rows of all replicas' batches [R], or "replica".
        sigreg_weight: weight of the second part of the loss "sigreg"; the first
            one has 1 - sigreg_weight.  [O] 0.05
        num_directions: number of directions in which the loss "sigreg"
            compares the embeddings with a normal distribution; each step has
            new directions.  [O] 256
        same_video_negatives: whether groups of the same video are negatives
            of each other.  [O] True
        weight, name: as `Level`.
    """

    def __init__(
        self,
        loss: str = "triplet",
        margin: float = 0.5,
        temperature: float = 0.1,
        head_units: int = 1000,
        negatives: str = "global",
        same_video_negatives: bool = True,
        sigreg_weight: float = 0.05,
        num_directions: int = 256,
        weight: float = 1.0,
        name: str | None = None,
        **kwargs,
    ):
        super().__init__(weight, name, **kwargs)
        checks.check_choice("loss", loss, LOSSES)
        checks.check_choice("negatives", negatives, base.NEGATIVES)
        self.require(margin > 0, "margin > 0", margin)
        self.require(temperature > 0, "temperature > 0", temperature)
        self.require(head_units >= 1, "head_units >= 1", head_units)
        self.require(
            0 < sigreg_weight < 1, "sigreg_weight in (0, 1)", sigreg_weight
        )
        self.require(num_directions >= 1, "num_directions >= 1", num_directions)
        self.loss = loss
        self.margin = margin
        self.temperature = temperature
        self.head_units = head_units
        self.negatives = negatives
        self.same_video_negatives = same_video_negatives
        self.sigreg_weight = sigreg_weight
        self.num_directions = num_directions
        self.head = heads.linear_head(head_units, "head")

    def grouped(self, inputs):
        """Groups of rows: features [G, K, D], mask bool [G], owner int [G].

        Groups with the same owner come from the same video. The last item is
        `LevelInputs.duplicates` of each group, int [G], or None.
        """
        raise NotImplementedError

    def call(self, inputs, training=None):
        features, mask, owner, duplicates = self.grouped(inputs)
        embeddings = self.head(features)  # [G, K, U]
        num_groups, size = ops.shape(embeddings)[0], embeddings.shape[1]
        metrics = embedding_metrics(embeddings, mask)
        if self.loss == "sigreg":
            return self._sigreg_output(embeddings, mask, inputs, metrics)
        ids = ops.arange(num_groups, dtype="int32")
        # Unique over replicas, since all have the same number of groups.
        ids = ids + inputs.replicas.index * num_groups
        ids = ops.where(mask, ids, -ops.ones_like(ids))
        rows = ops.reshape(embeddings, (-1, self.head_units))  # [N, U]
        ids = ops.repeat(ids, size)  # [N]
        owner = ops.repeat(owner, size)
        if duplicates is not None:
            duplicates = ops.repeat(duplicates, size)
        losses, extra = self._compare(
            rows, ids, owner, duplicates, size, inputs.replicas
        )
        weights = ops.cast(ids >= 0, losses.dtype)
        return base.LevelOutput(losses, weights, {**metrics, **extra})

    def _everyone(self, replicas):
        """A function of rows [N, ...] -> the rows to compare with [M, ...]."""
        if self.negatives == "global":
            return replicas.gather
        return lambda rows: rows

    def _sigreg_output(self, embeddings, mask, inputs, metrics):
        """The output for the loss "sigreg".

        Each copy's embeddings are compared with the normal distribution
        separately, since the embeddings of a group are not independent.
        """
        (embeddings,) = at_least_float32(embeddings)  # [G, K, U]
        weights = ops.cast(mask, embeddings.dtype)
        apart = embeddings - ops.mean(embeddings, axis=1, keepdims=True)
        apart = ops.mean(ops.square(apart), axis=(1, 2))  # [G]
        everyone = self._everyone(inputs.replicas)
        copies = ops.transpose(everyone(embeddings), (1, 0, 2))
        keys = sampling.fold(
            *(_DIRECTIONS, inputs.step, np.arange(self.num_directions)), ops=ops
        )
        distance = ops.mean(
            sigreg(
                copies, everyone(weights), _directions(keys, self.head_units)
            )
        )
        share = self.sigreg_weight
        count = ops.sum(weights)
        metrics["normality_distance"] = ops.stop_gradient(distance), count
        losses = (1 - share) * apart + share * distance
        return base.LevelOutput(losses, weights, metrics)

    def _compare(self, rows, ids, owner, duplicates, size, replicas):
        """Losses [N] of the rows, and metrics specific to the loss."""
        everyone = self._everyone(replicas)
        others, other_ids, other_owner = map(everyone, (rows, ids, owner))
        exclude = None
        if not self.same_video_negatives:
            exclude = owner[:, None] == other_owner[None, :]  # [N, M]
        if duplicates is not None:
            copies = base.same_footage(
                duplicates, everyone(duplicates), owner, other_owner
            )
            exclude = (
                copies if exclude is None else ops.logical_or(exclude, copies)
            )
        if self.loss != "triplet":
            return multi_positive_nce(
                rows, ids, self.temperature, others, other_ids, exclude
            ), {}
        hinges, mask, _ = semi_hard_pairs(
            rows, ids, self.margin, others, other_ids, exclude, size
        )  # [N, K - 1]; every unpadded row has all its K - 1 positives
        active = ops.cast(hinges > 0, hinges.dtype)
        count = ops.sum(ops.cast(mask, hinges.dtype))
        share = ops.sum(active) / ops.maximum(count, 1)
        return ops.mean(hinges, axis=1), {"active_share": (share, count)}

    def get_config(self):
        return {
            **super().get_config(),
            "loss": self.loss,
            "margin": self.margin,
            "temperature": self.temperature,
            "head_units": self.head_units,
            "negatives": self.negatives,
            "same_video_negatives": self.same_video_negatives,
            "sigreg_weight": self.sigreg_weight,
            "num_directions": self.num_directions,
        }


def _directions(keys, size):
    """Random directions, unit columns float32 [size, number of keys]."""
    draws = sampling.uniforms(keys, 2 * size, ops)  # [S, 2 D]
    length = ops.sqrt(-2 * ops.log(1 - draws[:, :size]))
    normal = length * ops.cos(2 * np.pi * draws[:, size:])
    return ops.transpose(ops.normalize(normal, axis=-1))


@keras.saving.register_keras_serializable(package="vivi_keras")
class FrameExemplar(Exemplar):
    """Pulls the copies of one frame together.  [P]

    Labelled images in the batch, with their copies, are used as additional
    frames, each from a separate video.  [G]

    Args: as `Exemplar`.
    """

    streams = ("videos", "images")

    def check(self, num_shots, frames_per_shot, copies):
        self.require(
            copies >= 2, "at least 2 copies of a frame or image", copies
        )

    def grouped(self, inputs):
        videos, shots, frames, copies, depth = inputs.features.shape
        features = ops.reshape(inputs.features, (-1, copies, depth))
        mask = ops.repeat(ops.reshape(inputs.shot_mask, (-1,)), frames)
        owner = ops.repeat(inputs.video_id, shots * frames)
        duplicates = inputs.duplicates
        if duplicates is not None:
            duplicates = ops.repeat(ops.reshape(duplicates, (-1,)), frames)
        if inputs.image_features is None:
            return features, mask, owner, duplicates
        images = inputs.image_features  # [M, C, D]
        self.require(
            images.shape[1] == copies,
            f"as many copies of a labelled image as of a frame ({copies})",
            images.shape[1],
        )
        count = ops.shape(images)[0]
        # Video ids are >= 0, so these negative ids are unique.
        index = ops.arange(count, dtype="int32")
        index = -1 - index - inputs.replicas.index * count
        if duplicates is not None:
            none = ops.cast(-ops.ones_like(index), duplicates.dtype)
            duplicates = ops.concatenate([duplicates, none], axis=0)
        return (
            ops.concatenate([features, images], axis=0),
            ops.concatenate([mask, index < 0], axis=0),
            ops.concatenate([owner, ops.cast(index, owner.dtype)], axis=0),
            duplicates,
        )


@keras.saving.register_keras_serializable(package="vivi_keras")
class ShotExemplar(Exemplar):
    """Pulls the frames of one shot, with all their copies, together.  [R]

    Args: as `Exemplar`.
    """

    def check(self, num_shots, frames_per_shot, copies):
        self.require(
            frames_per_shot * copies >= 2,
            "frames_per_shot * copies >= 2, so that a shot has positives",
            f"{frames_per_shot} * {copies}",
        )

    def grouped(self, inputs):
        videos, shots, frames, copies, depth = inputs.features.shape
        features = ops.reshape(inputs.features, (-1, frames * copies, depth))
        mask = ops.reshape(inputs.shot_mask, (-1,))
        duplicates = inputs.duplicates
        if duplicates is not None:
            duplicates = ops.reshape(duplicates, (-1,))
        return features, mask, ops.repeat(inputs.video_id, shots), duplicates
