"""Video levels: predict a video's later shots, or the order of its shots."""

import keras
from keras import ops

from vivi_keras import checks
from vivi_keras.levels import base
from vivi_keras.losses.cross_entropy import order
from vivi_keras.losses.info_nce import info_nce_logits, info_nce_metrics
from vivi_keras.models import heads


def _shot_embeddings(layer, features):
    """Pools all frames and copies: [B, S, F, C, D] -> [B, S, D]."""
    videos, shots, frames, copies, depth = features.shape
    return layer(ops.reshape(features, (-1, shots, frames * copies, depth)))


@keras.saving.register_keras_serializable(package="vivi_keras")
class VideoInfoNCE(base.Level):
    """Uses shots 1..k to pick shot k + m out of other videos' shots.  [R]

    For every k < S and m <= S - k, the critic scores g_m(context_k) against
    the embeddings of shot k + m of all videos in the batch.

    Args:
        predictor: "lstm" [R for S = 4] or "mlp" [R for S = 2].
        critic: "mlp" [R] or "cosine" [O].
        units: size of contexts, predictions and the critic.  [R] 256
        pool: "mean" or "attention", how frames are pooled to a shot.  [R]
        temperature: divides the scores; None for 1 with "mlp" [R] or 0.1
            with "cosine" [O].
        negatives: "global", videos of all replicas' batches [R], or
            "replica".
        same_video_negatives: whether other clips of the same video are
            negatives; else they are ignored.  [O] False
        weight, name: as `Level`; the weight is lambda.  [R] 0.04
    """

    def __init__(
        self,
        predictor: str = "lstm",
        critic: str = "mlp",
        units: int = 256,
        pool: str = "mean",
        temperature: float | None = None,
        negatives: str = "global",
        same_video_negatives: bool = False,
        weight: float = 0.04,
        name: str | None = None,
        **kwargs,
    ):
        super().__init__(weight, name, **kwargs)
        checks.check_choice("predictor", predictor, heads.PREDICTORS)
        checks.check_choice("critic", critic, heads.CRITICS)
        checks.check_choice("pool", pool, heads.POOLINGS)
        checks.check_choice("negatives", negatives, base.NEGATIVES)
        self._given = {
            "predictor": predictor,
            "critic": critic,
            "units": units,
            "pool": pool,
            "temperature": temperature,
            "negatives": negatives,
            "same_video_negatives": same_video_negatives,
        }
        self.negatives = negatives
        self.same_video_negatives = same_video_negatives
        self.pool = heads.POOLINGS[pool](name="pool")
        self.predictor = heads.PREDICTORS[predictor](units, name="predictor")
        self.critic = heads.CRITICS[critic](units, name="critic")
        self.temperature = (
            self.critic.default_temperature
            if temperature is None
            else temperature
        )
        self.require(self.temperature > 0, "temperature > 0", temperature)

    def check(self, num_shots, frames_per_shot, copies):
        self.require(num_shots >= 2, "at least 2 shots in a clip", num_shots)

    def call(self, inputs, training=None):
        shots = _shot_embeddings(self.pool, inputs.features)  # [B, S, D]
        num_shots = shots.shape[1]
        # (k, k + m) as indices: the last known shot, the shot to predict.
        places = [
            (known, target)
            for known in range(num_shots - 1)
            for target in range(known + 1, num_shots)
        ]  # P of them
        predictions = self.predictor(shots)  # [B, S - 1, S - 1, U]
        contexts = ops.stack(
            [predictions[:, k, t - k - 1] for k, t in places]
        )  # [P, B, U]
        queries, keys = self.critic(
            (contexts, ops.transpose(shots, (1, 0, 2)))
        )  # [P, B, U], [S, B, U]
        targets = [target for _, target in places]
        losses, weights, metrics = self._compare(inputs, queries, keys, targets)
        return base.LevelOutput(
            ops.reshape(losses, (-1,)), ops.reshape(weights, (-1,)), metrics
        )

    def _compare(self, inputs, queries, keys, targets):
        """Losses and weights [P, B] of queries among all videos' keys."""
        replicas = inputs.replicas
        mask = inputs.shot_mask  # [B, S]
        key_mask, key_video, offset = mask, inputs.video_id, 0
        key_copies = copies = inputs.duplicates  # [B, S] or None
        if self.negatives == "global":
            num_videos = ops.shape(mask)[0]
            offset = replicas.index * num_videos
            keys = ops.swapaxes(replicas.gather(ops.swapaxes(keys, 0, 1)), 0, 1)
            key_mask = replicas.gather(ops.cast(mask, "int32"))  # [all B, S]
            key_mask = ops.cast(key_mask, "bool")
            key_video = replicas.gather(inputs.video_id)
            if copies is not None:
                key_copies = replicas.gather(copies)  # [all B, S]
        self.require(
            key_video.shape[0] != 1,
            "at least 2 clips in a batch (in each micro-batch, and with"
            " negatives='replica' in each replica's part), since their shots"
            " are each other's negatives",
            1,
        )
        key_mask = ops.stack([key_mask[:, t] for t in targets])  # [P, all B]
        exclude = ops.logical_not(key_mask)[:, None, :]
        if not self.same_video_negatives:
            same = inputs.video_id[:, None] == key_video[None, :]
            exclude = ops.logical_or(exclude, same[None])  # [P, B, all B]
        if copies is not None:
            both = (
                ops.stack([numbers[:, t] for t in targets])
                for numbers in (copies, key_copies)
            )  # [P, B], [P, all B]
            same = base.same_footage(*both, inputs.video_id, key_video)
            exclude = ops.logical_or(exclude, same)
        keys = ops.stack([keys[t] for t in targets])  # [P, all B, U]
        logits, own = info_nce_logits(
            queries, keys, self.temperature, exclude, offset
        )
        losses = ops.logsumexp(logits, axis=-1) - own
        weights = ops.cast(
            ops.stack([mask[:, t] for t in targets]), losses.dtype
        )
        # A padded target is not an example; set its arbitrary loss to 0.
        losses = ops.where(weights > 0, losses, ops.zeros_like(losses))
        metrics = info_nce_metrics(logits, own, weights)
        return losses, weights, metrics

    def get_config(self):
        return {**super().get_config(), **self._given}


@keras.saving.register_keras_serializable(package="vivi_keras")
class ShotOrder(base.Level):
    """Predicts whether two neighbouring shots were swapped.  [P], head [O]

    Both orders of every pair are scored: this gives the expected loss for
    swaps with probability 1/2.  [O]

    Args:
        units: size of the hidden layer of the head.  [O] 256
        pool: "mean" or "attention", how frames are pooled to a shot.  [R]
        weight, name: as `Level`.  [R] 1.0
    """

    def __init__(
        self,
        units: int = 256,
        pool: str = "mean",
        weight: float = 1.0,
        name: str | None = None,
        **kwargs,
    ):
        super().__init__(weight, name, **kwargs)
        checks.check_choice("pool", pool, heads.POOLINGS)
        self.require(units >= 1, "units >= 1", units)
        self._given = {"units": units, "pool": pool}
        self.pool = heads.POOLINGS[pool](name="pool")
        self.head = heads.MLP(1, units, name="head")

    def check(self, num_shots, frames_per_shot, copies):
        self.require(num_shots >= 2, "at least 2 shots in a clip", num_shots)

    def call(self, inputs, training=None):
        shots = _shot_embeddings(self.pool, inputs.features)  # [B, S, D]
        earlier, later = shots[:, :-1], shots[:, 1:]
        pairs = ops.stack(
            [
                ops.concatenate([earlier, later], axis=-1),
                ops.concatenate([later, earlier], axis=-1),
            ],
            axis=2,
        )  # [B, S - 1, 2, 2 D]; the second is swapped
        logits = ops.reshape(self.head(pairs), (-1, 2))
        swapped = ops.arange(2)[None, :]  # [1, 2]
        losses = order(logits, swapped)
        mask = ops.reshape(inputs.shot_mask[:, 1:], (-1, 1))
        weights = ops.cast(mask, losses.dtype) * ops.ones_like(losses)
        right = (logits > 0) == (swapped > 0)
        return base.LevelOutput(
            ops.reshape(losses, (-1,)),
            ops.reshape(weights, (-1,)),
            {"accuracy": base.share(right, weights)},
        )

    def get_config(self):
        return {**super().get_config(), **self._given}
