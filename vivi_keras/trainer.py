"""ViviModel: one train step of the hierarchy, under any strategy."""

import math

import keras
from keras import ops

from vivi_keras import strategies

VIEW_POLICIES = ("exemplar", "rotation", None)


class ViviModel(keras.Model):
    """Trains an image encoder on batches of video clips.

    `compile(optimizer)` and `fit(batches)` work as for any Keras model,
    under every `tf.distribute` strategy. The losses are the objective's; the
    progress bar shows the mean of each part since the metrics were reset.

    Args:
        encoder: keras.Model, images float [N, H, W, 3] in [0, 1] ->
            features [N, D].
        objective: vivi_keras.Objective.
        views: colour policy of the views, "exemplar", "rotation" or None.
        seed: int; the views of a step depend on (seed, step) alone.
        micro_batches: int A; the batch is taken in A parts whose gradients
            are averaged. Batch norm and negatives see one part at a time.
        skip_nonfinite: leave the weights as they were after a step whose
            loss or gradient is not finite; the metric "skipped" tells the
            share of such steps.
        name: of the model.
    Attributes:
        step: int64 variable, the number of batches taken so far.
        metric_names: what `fit` shows, known once built.
    """

    def __init__(
        self,
        encoder: keras.Model,
        objective: keras.layers.Layer,
        views: str | None = "exemplar",
        seed: int = 0,
        micro_batches: int = 1,
        skip_nonfinite: bool = False,
        name: str = "vivi",
    ):
        super().__init__(name=name)
        if views not in VIEW_POLICIES:
            raise ValueError(
                f"views must be one of {VIEW_POLICIES}. Got: {views!r}"
            )
        if micro_batches < 1:
            raise ValueError(
                f"micro_batches must be >= 1. Got: {micro_batches}"
            )
        self.encoder = encoder
        self.objective = objective
        self.views = views
        self.seed = seed
        self.micro_batches = micro_batches
        self.skip_nonfinite = skip_nonfinite
        self.resumed = False
        self.metric_names = ()
        self.step = self._add_state("step", (), "int64")
        self.totals = None  # sums of the metrics, then of the steps

    def _add_state(self, name, shape, dtype):
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    # Building -----------------------------------------------------------

    def build_from(self, element_spec):
        """Makes every variable for batches like `element_spec`.

        `fit` does this by itself, without drawing a batch (Keras would draw
        one, which shifts a resumed stream by one).

        Args:
            element_spec: dict of tf.TensorSpec or of arrays, of one
                replica's part of a batch.
        """
        if self.built:
            return
        clip, size = _clip_shape(element_spec["frames"].shape)
        self._check(clip)
        batch = {
            name: ops.zeros((2, *spec.shape[1:]), spec.dtype)
            for name, spec in element_spec.items()
            if name not in ("frames", "image")
        }
        rows = 2 * math.prod(clip[1:])
        if "image" in element_spec:
            shape = tuple(element_spec["image"].shape)
            batch["image"] = ops.zeros((2, *shape[1:]), "uint8")
            rows += 2 * (shape[1] if len(shape) == 5 else 1)
        with self.distribute_strategy.scope():
            self.encoder(ops.zeros((1, *size, 3)))
            depth = self.encoder.output_shape[-1]
            features = ops.zeros((rows * self.objective.num_turns, depth))
            outputs = self._parts(features, (2, *clip[1:]), batch, False)
            names = (*_named_parts(outputs), "loss")
            if self.skip_nonfinite:
                names = (*names, "skipped")
            self.metric_names = names
            self.totals = self._add_state(
                "totals", (len(names) + 1,), "float32"
            )
            if self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
        self.built = True

    def _check(self, clip):
        self.objective.validate(*clip[1:])
        if clip[0] is not None and clip[0] % self.micro_batches:
            raise ValueError(
                "The rows of each replica must be a multiple of"
                f" micro_batches={self.micro_batches}. Got: {clip[0]}"
            )

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if iterator is None:
            batch, _, _ = keras.utils.unpack_x_y_sample_weight(data_batch)
            self.build_from(batch)
            return
        data = iterator.data_adapter.get_tf_dataset()
        spec, _, _ = keras.utils.unpack_x_y_sample_weight(data.element_spec)
        self.build_from(
            strategies.replica_spec(
                spec, self.distribute_strategy.num_replicas_in_sync
            )
        )

    # The step -----------------------------------------------------------

    def call(self, batch, training=False):
        """Level name -> (losses [N], weights [N], metrics) of one batch."""
        frames = batch["frames"]
        clip, size = _clip_shape(frames.shape)
        images = self._coloured(
            ops.reshape(frames, (-1, *size, 3)), batch.get("row")
        )
        images = self.objective.transform_images(images)
        features = self.encoder(images, training=training)
        return self._parts(features, clip, batch, training)

    def _parts(self, features, clip, batch, training):
        inputs = self.objective.level_inputs(
            features,
            clip_shape=clip,
            shot_mask=batch["shot_mask"],
            video_id=batch["video_id"],
            replicas=strategies.current_replicas(),
        )
        outputs = self.objective(inputs, training=training)
        return {
            name: (output.losses, output.weights, output.metrics)
            for name, output in outputs.items()
        }

    def _coloured(self, images, rows):
        """uint8 [N, H, W, 3] -> float32 in [0, 1], seeded by global place."""
        if self.views is None:
            return ops.cast(images, "float32") / 255.0
        # TensorFlow's own operations: other backends train with views=None.
        from vivi_keras.data.views import colour_views

        position = None
        if rows is not None:
            each = images.shape[0] // rows.shape[0]
            position = rows[:, None] * each + ops.arange(each, dtype="int64")
            position = ops.reshape(position, (-1,))
        return colour_views(
            images, (self.seed, self.step.value), self.views, position
        )

    def _total(self, outputs):
        """This replica's share of the loss, and metrics of the global batch.

        The replicas' shares add up to the loss of the global batch, as the
        optimizer adds up their gradients.
        """
        replicas = strategies.current_replicas()
        parts = _named_parts(outputs)
        sums = ops.stack([part[0] for part in parts.values()])
        weights = ops.stack([part[1] for part in parts.values()])
        shares = dict(
            zip(
                parts,
                ops.unstack(ops.divide_no_nan(sums, replicas.sum(weights))),
                strict=True,
            )
        )
        total = sum(
            level.weight * shares[f"{level.name}_loss"]
            for level in self.objective.levels
        )
        for penalty in self.losses:  # counted once, not once a replica
            total += ops.cast(penalty, "float32") / replicas.count
        metrics = replicas.sum(ops.stack([*shares.values(), total]))
        return total, metrics

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The total loss of `call`'s outputs, for Keras's own steps."""
        return self._total(y_pred)[0]

    def train_step(self, data, *rest):
        """One update of the weights from one (replica's part of a) batch."""
        if keras.backend.backend() != "tensorflow":
            return super().train_step(data, *rest)
        import tensorflow as tf

        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        state = []
        if self.skip_nonfinite:
            state = [
                (variable, tf.identity(variable.value))
                for variable in [*self.variables, *self.optimizer.variables]
                if variable not in (self.step, self.totals)
            ]
        gradients, metrics = self._gradients(batch)
        if self.skip_nonfinite or _scales_loss(self.optimizer):
            gradients, finite = _agree(gradients, metrics)
        self.optimizer.apply(gradients, self.trainable_variables)
        for variable, value in state:
            variable.assign(tf.where(finite, variable.value, value))
        if self.skip_nonfinite:
            metrics = tf.where(finite, metrics, 0.0)
            skipped = 1.0 - tf.cast(finite, "float32")
            metrics = tf.concat([metrics, skipped[None]], 0)
        self.step.assign_add(1)
        return self._logs(metrics)

    def _gradients(self, batch):
        """Gradients and metrics, means over the micro-batches."""
        import tensorflow as tf

        gradients, metrics = None, 0.0
        for part in _micro_batches(batch, self.micro_batches):
            # One after the other: else the activations of all parts would
            # be in memory at once.
            with tf.control_dependencies(gradients or ()):
                part = {name: tf.identity(x) for name, x in part.items()}
            with tf.GradientTape() as tape:
                total, part_metrics = self._total(self(part, training=True))
                loss = self.optimizer.scale_loss(total / self.micro_batches)
            new = tape.gradient(loss, self.trainable_variables)
            metrics += part_metrics / self.micro_batches
            if gradients is None:
                gradients = new
            else:
                gradients = [
                    a if b is None else a + b
                    for a, b in zip(gradients, new, strict=True)
                ]
        return gradients, metrics

    def test_step(self, data):
        """The losses of one batch, at no change of the weights."""
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self._logs(self._total(self(batch, training=False))[1])

    def _logs(self, metrics):
        """Adds to the totals; name -> mean since they were reset."""
        self.totals.assign_add(ops.concatenate([metrics, ops.ones(1)]))
        means = self.totals[:-1] / self.totals[-1]
        return dict(zip(self.metric_names, ops.unstack(means), strict=True))

    def fit(self, *args, shuffle=False, **kwargs):
        """As `keras.Model.fit`; batches come shuffled already."""
        return super().fit(*args, shuffle=shuffle, **kwargs)

    def reset_metrics(self):
        """Starts the shown means anew, except right after a restore."""
        super().reset_metrics()
        if self.resumed:
            self.resumed = False
        elif self.totals is not None:
            self.totals.assign(ops.zeros_like(self.totals))

    # Keras's own functions reduce the logs in ways that fail under
    # MultiWorkerMirroredStrategy; here the replicas' logs are equal already.

    def make_train_function(self, force=False):
        """Makes the function that `fit` calls for each step or several."""
        if keras.backend.backend() != "tensorflow":
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = strategies.step_function(
                self, self.train_step
            )
        return self.train_function

    def make_test_function(self, force=False):
        """Makes the function that `evaluate` calls for each step."""
        if keras.backend.backend() != "tensorflow":
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = strategies.step_function(self, self.test_step)
        return self.test_function


def _clip_shape(shape):
    """[B, S, F, (C,) H, W, 3] -> (B, S, F, C), (H, W)."""
    shape = tuple(shape)
    if len(shape) not in (6, 7) or shape[-1] != 3:
        raise ValueError(
            "frames must be [B, S, F, H, W, 3] or, with copies,"
            f" [B, S, F, C, H, W, 3]. Got: {list(shape)}"
        )
    copies = shape[3] if len(shape) == 7 else 1
    return (*shape[:3], copies), shape[-3:-1]


def _named_parts(outputs):
    """Metric name -> (sum, weight), float32 scalars."""
    parts = {}
    for name, (losses, weights, metrics) in outputs.items():
        weights = ops.cast(weights, "float32")
        losses = ops.cast(losses, "float32")
        parts[f"{name}_loss"] = (ops.sum(losses * weights), ops.sum(weights))
        for metric, (value, weight) in metrics.items():
            value = ops.cast(value, "float32")
            weight = ops.cast(weight, "float32")
            parts[f"{name}_{metric}"] = (value * weight, weight)
    return parts


def _micro_batches(batch, count):
    """Parts of a replica's rows; "row" is the place in the global batch."""
    rows = batch["frames"].shape[0]
    first = strategies.current_replicas().index * rows
    row = ops.cast(first, "int64") + ops.arange(rows, dtype="int64")
    batch = {**batch, "row": row}
    split = {name: ops.split(x, count) for name, x in batch.items()}
    return [{name: split[name][i] for name in split} for i in range(count)]


def _scales_loss(optimizer):
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def _agree(gradients, metrics):
    """Whether all replicas' gradients are finite; if not, none's are."""
    import tensorflow as tf

    replicas = strategies.current_replicas()
    checked = [*(g for g in gradients if g is not None), metrics]
    bad = [tf.reduce_any(~tf.math.is_finite(x)) for x in checked]
    bad = replicas.sum(tf.cast(tf.reduce_any(bad), "float32"))
    poison = tf.where(bad > 0, float("nan"), 0.0)
    gradients = [
        None if g is None else g + tf.cast(poison, g.dtype) for g in gradients
    ]
    return gradients, bad == 0
