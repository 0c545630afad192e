"""ViviModel: one training step of all levels, under any strategy."""

import contextlib
import inspect
import math

import keras
from keras import ops

from vivi_keras import checks
from vivi_keras.levels import replicas as replicas_lib
from vivi_keras.models import adapt
from vivi_keras.models.encoders import check_encoder
from vivi_keras.trainer import batch as batch_lib
from vivi_keras.trainer import optimizers

tf_step = jax_step = None
if keras.backend.backend() == "tensorflow":
    from vivi_keras.trainer import tf_step
elif keras.backend.backend() == "jax":
    from vivi_keras.trainer import jax_step

VIEW_POLICIES = ("exemplar", "rotation", None)
STATISTICS = ("both", "videos", "images")
# Arguments of Keras's methods that raise an error, and what replaces them.
_LOSSES = "the levels of the objective give the losses and their weights"
_METRICS = "the levels of the objective give the metrics"
_LABELS = 'labels are a field of the batch, "label"'
_UNUSED = {
    "loss": _LOSSES,
    "loss_weights": _LOSSES,
    "metrics": _METRICS,
    "weighted_metrics": _METRICS,
    "y": _LABELS,
    "sample_weight": _LOSSES,
    "class_weight": _LOSSES,
}


@keras.saving.register_keras_serializable(package="vivi_keras")
class ViviModel(keras.Model):
    """Trains an image encoder on video clips, labelled images or both.

    A batch is a dict of "frames", "shot_mask" and "video_id" (see
    `data.video_batches`), of "image" and "label" (`data.labelled_batches`),
    or of all five (`data.mixed_batches`). Fields that no level uses are
    ignored. Frames and images are encoded together in one batch, as in
    S4L.

    `compile(optimizer)`, `fit(batches)` and `save(path)` work as for any
    Keras model, under every `tf.distribute` strategy. The objective gives the
    losses and metrics; the progress bar shows the mean of each since the
    metrics were reset. A saved model can be trained further;
    `vivi_keras.export_encoder` writes the encoder alone, for other programs.

    Args:
        encoder: keras.Model or layer, images float [N, H, W, 3] in [0, 1] ->
            features [N, D].
        objective: vivi_keras.Objective.
        views: colour augmentation of the frames, "exemplar", "rotation" or
            None.
        image_views: colour augmentation of the images, likewise.
        colour_strength, grey, blur: for both; see `data.colour_views`.
        separate_passes: encode frames and images one after the other, each
            normalised by its own batch statistics, instead of together.
        statistics: with separate passes, the stream that updates the moving
            averages of batch norm: "both", "videos" or "images".
        seed: int; the views of a step depend only on (seed, step).
        micro_batches: int A; the batch is split into A parts whose gradients
            are averaged. Batch norm and negatives see one part at a time.
        skip_nonfinite: keep the weights unchanged in a step whose loss or
            gradient is not finite; the metric "skipped" is the share of
            such steps.
        average_decay: float in [0, 1), decay of the moving averages of the
            encoder's variables; 0 for no averages. After step t it is
            min(average_decay, (1 + t) / (10 + t)), so that the initial
            weights are forgotten soon.
        guard: adapt.Guard that limits the changes of the encoder, or None.
        name: name of the model.
        **kwargs: `dtype` and `trainable`, as for any Keras model.
    Attributes:
        step: int64 variable, the number of training steps done.
        steps_done: int, the value of `step`, to be read outside of a step.
            With JAX, a callback must read it before any other variable.
        learning_rate: float, learning rate of the next step.
        averages: list of the moving averages, in the order of
            `encoder.variables`; empty with average_decay=0.
        metric_names: names of the metrics of `fit`, set when built.
        input_wait_seconds: float, seconds that `fit` waited for batches.

    >>> encoder = vivi_keras.ResNet50V2(width=0.125, units=(1, 1, 1, 1))
    >>> objective = vivi_keras.Objective([make_level("shot_exemplar")])
    >>> model = vivi_keras.ViviModel(encoder, objective)
    >>> model.compile(optimizer="sgd")
    >>> batches = data.video_batches("data", batch_size=4, image_size=32)
    >>> history = model.fit(batches, steps_per_epoch=1, verbose=0)
    >>> model.steps_done
    1
    """

    def __init__(
        self,
        encoder: keras.Model,
        objective: keras.layers.Layer,
        views: str | None = "exemplar",
        image_views: str | None = None,
        colour_strength: float = 1.0,
        grey: float = 0.0,
        blur: float = 0.0,
        separate_passes: bool = False,
        statistics: str = "both",
        seed: int = 0,
        micro_batches: int = 1,
        skip_nonfinite: bool = False,
        average_decay: float = 0.0,
        guard: adapt.Guard | None = None,
        name: str = "vivi",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.autocast = False  # batches are checked before any cast
        for argument, value, known in (
            ("views", views, VIEW_POLICIES),
            ("image_views", image_views, VIEW_POLICIES),
            ("statistics", statistics, STATISTICS),
        ):
            checks.check_choice(argument, value, known)
        if statistics != "both" and not separate_passes:
            raise ValueError(
                f"statistics={statistics!r} needs separate_passes=True: frames"
                " and images that are encoded together share their statistics"
            )
        if not 0 <= colour_strength < math.inf:
            raise ValueError(
                f"colour_strength must be finite and >= 0."
                f" Got: {colour_strength}"
            )
        for argument, value in (("grey", grey), ("blur", blur)):
            checks.check_range(argument, value, 0, 1)
            if value and views is None and image_views is None:
                raise ValueError(
                    f"views or image_views must be given with {argument}. Got:"
                    f" {argument}={value} and None for both"
                )
        if micro_batches < 1:
            raise ValueError(
                f"micro_batches must be >= 1. Got: {micro_batches}"
            )
        if not 0 <= average_decay < 1:
            raise ValueError(
                f"average_decay must be in [0, 1). Got: {average_decay}"
            )
        self.encoder = encoder
        self.objective = objective
        self.views = views
        self.image_views = image_views
        self.colour_strength = colour_strength
        self.grey = grey
        self.blur = blur
        self.separate_passes = separate_passes
        self.statistics = statistics
        self.seed = seed
        self.micro_batches = micro_batches
        self.skip_nonfinite = skip_nonfinite
        self.average_decay = average_decay
        self.guard = guard
        # An attribute, so that it is saved with the model.
        self.start = None if guard is None else guard.start
        if self.start is not None:
            self.start.trainable = False
        self.averages = []
        self._built_for = None  # field -> (shape, dtype)
        self._penalties = {}  # id of a variable -> its regulariser
        self.input_wait_seconds = 0.0
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

    @property
    def steps_done(self) -> int:
        if keras.backend.backend() == "jax":
            # While `fit` runs, the variables have no values until this.
            self.jax_state_sync()
        return int(replicas_lib.local(self.step.value))

    @property
    def learning_rate(self) -> float:
        rate = self.optimizer.learning_rate
        return float(replicas_lib.local(getattr(rate, "value", rate)))

    # Building -----------------------------------------------------------

    def build_from(self, element_spec):
        """Creates all variables for batches like `element_spec`.

        `fit` calls this without taking a batch (Keras itself would take
        one, so a resumed run would skip a batch).

        Args:
            element_spec: dict of tf.TensorSpec or arrays: one replica's
                part of a batch.
        """
        if self.built:
            return
        spec = self._used(element_spec)
        self._check(spec)
        self._built_for = {
            name: [
                [None, *field.shape[1:]],
                keras.backend.standardize_dtype(field.dtype),
            ]
            for name, field in spec.items()
        }
        batch = {
            name: ops.zeros((2, *spec[name].shape[1:]), spec[name].dtype)
            for name in ("shot_mask", "video_id", "duplicates", "label")
            if name in spec
        }
        clip, copies, size = batch_lib.batch_shape(spec)
        clip = (2 if "frames" in spec else 0, *clip[1:])
        rows = math.prod(clip) + 2 * copies
        with self._scope():
            depth = check_encoder(self.encoder, size)
            features = ops.zeros((rows * self.objective.num_turns, depth))
            outputs = self._parts(features, clip, copies, batch, False)
            if self.start is not None:
                self.start(ops.zeros((1, *size, 3)))
                outputs["keep_close"] = (ops.zeros(1), ops.zeros(1), {})
            names = (*_named_parts(outputs), "loss")
            if self.skip_nonfinite:
                names = (*names, "skipped")
            self.metric_names = names
            self.totals = self._add_state(
                "totals", (len(names) + 1,), "float32"
            )
            if self.average_decay:
                self._start_averages()
            self._penalties = {
                id(variable): variable.regularizer
                for variable in self.trainable_variables
            }
            self._build_optimizer()
        self.built = True

    def _scope(self):
        """The scope of TensorFlow's strategy; nothing with other backends."""
        strategy = getattr(self, "distribute_strategy", None)
        return (
            contextlib.nullcontext() if strategy is None else strategy.scope()
        )

    def _start_averages(self):
        for index, variable in enumerate(self.encoder.variables):
            self.averages.append(
                keras.Variable(
                    ops.copy(variable),
                    trainable=False,
                    dtype=variable.dtype,
                    name=f"average_{index}",
                    # Each replica has its own copy; all copies are equal.
                    synchronization="on_read",
                    aggregation="only_first_replica",
                )
            )

    def _build_optimizer(self):
        optimizer = getattr(self, "optimizer", None)  # missing until compiled
        if optimizer is None or optimizer.built:
            return
        # An earlier compile may have moved the decay into its optimizer.
        for variable in self.trainable_variables:
            variable.regularizer = self._penalties.get(id(variable))
        optimizers.move_weight_decay_to_optimizer(
            optimizer, self.trainable_variables
        )
        optimizer.build(self.trainable_variables)

    def _used(self, batch):
        """The fields of a batch, or of its spec, that some level uses."""
        return batch_lib.used(batch, self.objective.streams)

    def _check(self, spec):
        streams = batch_lib.streams(spec)
        clip, copies, _ = batch_lib.batch_shape(spec)
        self.objective.validate(*clip[1:], streams=streams)
        for name in ("frames", "image"):
            rows = spec[name].shape[0] if name in spec else None
            if rows is not None and rows % self.micro_batches:
                raise ValueError(
                    f"The rows of {name} of each replica must be a multiple"
                    f" of micro_batches={self.micro_batches}. Got: {rows}"
                )

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if iterator is None:
            self.build_from(_fields(data_batch))
            return
        data = iterator.data_adapter.get_tf_dataset()
        self.build_from(
            batch_lib.replica_spec(
                _fields(data.element_spec),
                self.distribute_strategy.num_replicas_in_sync,
            )
        )

    def _symbolic_build(self, iterator=None, data_batch=None):
        """Keras's hook for building with a backend other than TensorFlow."""
        if self.built:
            return
        if data_batch is None:
            adapter = iterator.data_adapter
            dataset = getattr(adapter, "py_dataset", None)
            data_batch = getattr(dataset, "element_spec", None)
        if data_batch is None:
            data_batch = next(iter(adapter.get_numpy_iterator()))
        self.build_from(_fields(data_batch))

    # The step -----------------------------------------------------------

    def call(self, batch, training=False):
        """Dict: level name -> (losses [N], weights [N], metrics)."""
        used = self._used(batch)
        clip, copies, size = batch_lib.batch_shape(used)
        streams = {}
        for word, (name, stream, views) in enumerate(
            (
                ("frames", "videos", self.views),
                ("image", "images", self.image_views),
            )
        ):
            if name in used:
                streams[stream] = self.objective.transform_images(
                    self._augment(
                        ops.reshape(used[name], (-1, *size, 3)),
                        batch.get(f"{name}_row"),
                        views,
                        word,
                    )
                )
        features = self._encode(streams, training)
        outputs = self._parts(features, clip, copies, used, training)
        if self.start is not None:
            losses = self.guard.distances(features, [*streams.values()])
            outputs["keep_close"] = (losses, ops.ones_like(losses), {})
        return outputs

    def _encode(self, streams, training):
        """Features of the video frames, followed by those of the images."""
        if len(streams) == 1 or not self.separate_passes:
            rows = [*streams.values()]
            rows = ops.concatenate(rows) if len(rows) > 1 else rows[0]
            return self.encoder(rows, training=training)
        features = []
        for stream, rows in streams.items():
            kept = []
            if training and self.statistics not in ("both", stream):
                kept = self.encoder.non_trainable_variables
            before = [ops.copy(variable.value) for variable in kept]
            features.append(self.encoder(rows, training=training))
            for variable, value in zip(kept, before, strict=True):
                variable.assign(value)
        return ops.concatenate(features)

    def _parts(self, features, clip, image_copies, batch, training):
        labels = None
        if image_copies:
            images = features.shape[0] // self.objective.num_turns
            images = (images - math.prod(clip)) // image_copies
            labels = batch.get("label", -ops.ones((images,), "int32"))
        inputs = self.objective.level_inputs(
            features,
            clip_shape=clip,
            shot_mask=batch.get("shot_mask", ops.zeros((0, 0), "bool")),
            video_id=batch.get("video_id", ops.zeros((0,), "int32")),
            replicas=replicas_lib.current_replicas(),
            labels=labels,
            image_copies=image_copies,
            duplicates=batch.get("duplicates"),
            step=self.step.value,
        )
        outputs = self.objective(inputs, training=training)
        return {
            name: (output.losses, output.weights, output.metrics)
            for name, output in outputs.items()
        }

    def _augment(self, images, rows, views, word):
        """uint8 [N, H, W, 3] -> float32 in [0, 1]; seeded by global row."""
        if views is None:
            return ops.cast(images, "float32") / 255.0
        from vivi_keras.data.augment import colour_views

        position = None
        if rows is not None:
            each = images.shape[0] // rows.shape[0]
            position = rows[:, None] * each + ops.arange(each, dtype=rows.dtype)
            position = ops.reshape(position, (-1,))
        seed = (self.seed, self.step.value)
        if word:  # images must not share the seeds of frames in the same row
            seed = (*seed, word)
        return colour_views(
            images,
            seed,
            views,
            position,
            strength=self.colour_strength,
            grey=self.grey,
            blur=self.blur,
        )

    def classify(self, images):
        """Logits of images, computed in inference mode.

        Args:
            images: uint8 [N, H, W, 3].
        Returns: float32 [N, K].
        Raises: ValueError: the objective has no supervised level.
        """
        head = self.objective.classifier
        if head is None:
            raise ValueError("The objective has no supervised level.")
        images = ops.cast(images, "float32") / 255.0
        features = self.encoder(images, training=False)
        return ops.cast(head(features), "float32")

    def _total(self, outputs):
        """This replica's share of the loss, and metrics of the global batch.

        The sum of all replicas' shares is the loss of the global batch,
        since the optimizer sums the replicas' gradients.
        """
        replicas = replicas_lib.current_replicas()
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
            level.weight_at(self.step) * shares[f"{level.name}_loss"]
            for level in self.objective.levels
        )
        if self.start is not None:
            total += self.guard.keep_close * shares["keep_close_loss"]
        for penalty in self.losses:  # counted once, not once per replica
            total += ops.cast(penalty, "float32") / replicas.count
        metrics = replicas.sum(ops.stack([*shares.values(), total]))
        return total, metrics

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The total loss of `call`'s outputs, for Keras's own train step."""
        return self._total(y_pred)[0]

    def train_step(self, *arguments):
        """Updates the weights with one replica's part of a batch.

        With JAX it is a pure function of (state, batch), as Keras requires.
        """
        backend = keras.backend.backend()
        if backend == "tensorflow":
            return self._update(*arguments, tf_step)
        if backend == "jax":
            return self._stateless(self._update, *arguments, jax_step)
        return super().train_step(*arguments)

    def _stateless(self, step, state, *arguments):
        """Runs a step on a state: the values of four lists of variables."""
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            *((self.optimizer.variables,) if len(state) == 4 else ()),
            self.metrics_variables,
        )
        return jax_step.stateless(step, groups, state, *arguments)

    def _update(self, data, backend):
        batch = _fields(data)
        state = self._state() if self.skip_nonfinite else []
        guard = adapt.Guard() if self.guard is None else self.guard
        kept = guard.before(self.encoder)
        parts = batch_lib.micro_batches(batch, self.micro_batches)
        gradients, metrics = backend.gradients(self, parts, self._loss)
        if self.skip_nonfinite or optimizers.scales_loss(self.optimizer):
            gradients, finite = optimizers.nan_unless_all_finite(
                gradients, metrics, replicas_lib.current_replicas()
            )
        # With JAX, Keras itself clips the gradients of the global batch.
        if backend is tf_step:
            gradients = tf_step.clipped(self.optimizer, gradients)
        self.optimizer.apply(gradients, self.trainable_variables)
        guard.after(self.encoder, self.step.value, kept)
        self._move_averages()
        for variable, value in state:
            variable.assign(ops.where(finite, variable.value, value))
        if self.skip_nonfinite:
            metrics = ops.where(finite, metrics, 0.0)
            skipped = 1.0 - ops.cast(finite, "float32")
            metrics = ops.concatenate([metrics, skipped[None]])
        self.step.assign_add(1)
        return self._logs(metrics)

    def _state(self):
        """(variable, value) pairs that a skipped step must not change."""

        # The loss scale is left out, since a skipped step lowers it.
        optimizer = optimizers.inner(self.optimizer)
        return [
            (variable, ops.copy(variable.value))
            for variable in [*self.variables, *optimizer.variables]
            if variable is not self.step and variable is not self.totals
        ]

    def _move_averages(self):
        if not self.averages:
            return
        step = ops.cast(self.step, "float32")
        keep = ops.minimum(self.average_decay, (1.0 + step) / (10.0 + step))
        for average, variable in zip(
            self.averages, self.encoder.variables, strict=True
        ):
            share = ops.cast(keep, average.dtype)
            average.assign(share * average + (1 - share) * variable.value)

    def _loss(self, batch):
        return self._total(self(batch, training=True))

    def test_step(self, *arguments):
        """Computes the losses of one batch without changing the weights."""
        if keras.backend.backend() == "jax":
            return self._stateless(self._test, *arguments)
        return self._test(*arguments)

    def _test(self, data):
        outputs = self(_fields(data), training=False)
        return self._logs(self._total(outputs)[1])

    def _logs(self, metrics):
        """Adds to the totals; returns name -> mean since the last reset."""
        self.totals.assign_add(ops.concatenate([metrics, ops.ones(1)]))
        means = self.totals[:-1] / self.totals[-1]
        return dict(zip(self.metric_names, ops.unstack(means), strict=True))

    # Keras's interface --------------------------------------------------

    def compile(self, *args, **kwargs):
        """As `keras.Model.compile`, without losses and metrics.

        Args:
            optimizer, run_eagerly, steps_per_execution, jit_compile,
                auto_scale_loss: as `keras.Model.compile`.
        Raises: ValueError: a loss, metrics or weights of these are given.
        """
        _check_call("compile", self, args, kwargs)
        super().compile(*args, **kwargs)
        if self.built:
            with self._scope():
                self._build_optimizer()

    def fit(self, *args, shuffle=False, **kwargs):
        """As `keras.Model.fit`; the batches are already shuffled.

        With verbose="auto", `callbacks.ShowProgress` shows the progress.

        Raises: ValueError: `y`, `class_weight` or `sample_weight` is given, or
            a data set never ends and its number of steps is not given, or a
            ModelCheckpoint cannot save the encoder or a level.
        """
        given = _check_call("fit", self, args, kwargs)
        for data, steps in (
            ("x", "steps_per_epoch"),
            ("validation_data", "validation_steps"),
        ):
            _check_ends("fit", given, data, steps)
        given = {**given, "shuffle": shuffle}
        del given["self"]
        self._check_callbacks(given.get("callbacks"))
        if given.get("verbose", "auto") == "auto":
            given["verbose"] = 0
            given["callbacks"] = _with_progress(given.get("callbacks"))
        return super().fit(**given)

    def _check_callbacks(self, callbacks):
        """Raises ValueError early if ModelCheckpoint cannot save the model."""
        for callback in keras.tree.flatten(callbacks):
            if (
                isinstance(callback, keras.callbacks.ModelCheckpoint)
                and not callback.save_weights_only
            ):
                try:
                    keras.saving.serialize_keras_object(self)
                except (NotImplementedError, TypeError, ValueError) as error:
                    raise ValueError(
                        "ModelCheckpoint saves the whole model, so that the"
                        " encoder and each level must have get_config. Use"
                        " callbacks.SaveCheckpoints, or save_weights_only=True."
                        f" Got: {error}"
                    ) from error

    def evaluate(self, *args, **kwargs):
        """As `keras.Model.evaluate`; raises errors as `fit` does."""
        given = _check_call("evaluate", self, args, kwargs)
        _check_ends("evaluate", given, "x", "steps")
        return super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        """As `keras.Model.predict`; raises errors as `fit` does."""
        given = _check_call("predict", self, args, kwargs)
        _check_ends("predict", given, "x", "steps")
        return super().predict(*args, **kwargs)

    def reset_metrics(self):
        """Resets the means of the metrics, except right after a restore."""
        super().reset_metrics()
        if self.resumed:
            self.resumed = False
        elif self.totals is not None:
            self.totals.assign(ops.zeros(self.totals.shape))

    # Keras's own functions reduce the logs in a way that fails under
    # MultiWorkerMirroredStrategy; here all replicas' logs are already equal.

    def make_train_function(self, force=False):
        """Makes the function that `fit` calls for one or more steps."""
        if self.train_function is not None and not force:
            return self.train_function
        backend = keras.backend.backend()
        if backend == "tensorflow":
            self.train_function = tf_step.step_function(self, self.train_step)
        elif backend == "jax":
            steps, self.steps_per_execution = self.steps_per_execution, 1
            super().make_train_function(force)
            self.steps_per_execution = steps
            self.train_function = jax_step.step_function(
                self, self.train_function
            )
        else:
            super().make_train_function(force)
        return self.train_function

    def make_test_function(self, force=False):
        """Makes the function that `evaluate` calls for one or more steps."""
        if keras.backend.backend() != "tensorflow":
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = tf_step.step_function(self, self.test_step)
        return self.test_function

    # Saving -------------------------------------------------------------

    def get_config(self):
        return {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "objective": keras.saving.serialize_keras_object(self.objective),
            "views": self.views,
            "image_views": self.image_views,
            "colour_strength": self.colour_strength,
            "grey": self.grey,
            "blur": self.blur,
            "separate_passes": self.separate_passes,
            "statistics": self.statistics,
            "seed": self.seed,
            "micro_batches": self.micro_batches,
            "skip_nonfinite": self.skip_nonfinite,
            "average_decay": self.average_decay,
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for part in ("encoder", "objective"):
            config[part] = keras.saving.deserialize_keras_object(
                config[part], custom_objects
            )
        return cls(**config)

    def get_build_config(self):
        return self._built_for

    def build_from_config(self, config):
        self.build_from(
            {
                name: keras.KerasTensor(shape, dtype)
                for name, (shape, dtype) in config.items()
            }
        )

    def compile_from_config(self, config):
        # Keras asks for this method wherever `compile` is overridden.
        self.compile(**keras.saving.deserialize_keras_object(config))


def _fields(data):
    """The fields of a batch, which Keras may have put into a tuple."""
    batch, *rest = keras.utils.unpack_x_y_sample_weight(data)
    if any(part is not None for part in rest):
        raise ValueError(
            "A batch must be a dict of fields, without targets and sample"
            f" weights beside it: {_LABELS}, and {_LOSSES}. Got: a tuple of"
            f" {len(data)}"
        )
    return batch


def _check_call(method, model, args, kwargs):
    """Refuses the arguments in `_UNUSED`; returns all others by name."""
    signature = inspect.signature(getattr(keras.Model, method))
    given = signature.bind(model, *args, **kwargs).arguments
    for name, instead in _UNUSED.items():
        if given.get(name) is not None:
            raise ValueError(
                f"{name} is not an argument of ViviModel.{method}: {instead}."
                f" Got: {name}={given[name]!r:.100}"
            )
    return given


def _with_progress(callbacks):
    """Adds `ShowProgress` to the callbacks that `fit` was given."""
    from vivi_keras.trainer.callbacks import ShowProgress

    shown = ShowProgress()
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(shown)
        return callbacks
    if callbacks is None:
        callbacks = []
    elif not isinstance(callbacks, (list, tuple)):
        callbacks = [callbacks]
    return [*callbacks, shown]


def _check_ends(method, given, data, steps):
    """Refuses an endless data set if the number of steps is not given."""
    if given.get(steps) is None and _is_endless(given.get(data)):
        raise ValueError(
            f"{method} needs {steps}, since the data set {data} never ends."
            f" Got: {steps}=None"
        )


def _is_endless(data):
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    cardinality = getattr(data, "cardinality", 0)
    # A method of tf.data.Dataset, but a number in a distributed data set.
    return int(cardinality() if callable(cardinality) else cardinality) == -1


def _named_parts(outputs):
    """Dict: metric name -> (sum, weight), float32 scalars."""
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
