"""Which encoder can be trained, exported and used, as a table in Markdown.

    python benchmarks/studies/encoders.py [NAME ...]

A name is a value of config.model.encoder, or "vit" for a small ViT of KerasHub
that is made here. Weights are random. Each encoder is trained for a few steps
on one and two replicas, in micro-batches, in bfloat16 and with an interruption.
Then it is exported, verified, loaded, converted and scored. A cell says "yes"
or what went wrong.
"""

import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from vivi_keras.checks import reason  # noqa: E402
from vivi_keras.export import export_encoder  # noqa: E402
from vivi_keras.models import make_encoder  # noqa: E402
from vivi_keras.models.hub import HubEncoder  # noqa: E402
from vivi_keras.objective import Objective, make_level  # noqa: E402
from vivi_keras.runs import checkpoints  # noqa: E402
from vivi_keras.trainer import strategies  # noqa: E402
from vivi_keras.trainer.batch import replica_spec  # noqa: E402
from vivi_keras.trainer.model import ViviModel  # noqa: E402

NAMES = (
    "resnet50v2",
    "efficientnet_lite0",
    "applications:MobileNetV3Small",
    "applications:EfficientNetV2B0",
    "applications:ConvNeXtTiny",
    "vit",
)
SIZE, ROWS, STEPS = 32, 4, 3
# Weights after a step on one and on two replicas, relative to how far they
# moved. They may also be as far apart as rounding alone makes them.
REPLICA_TOLERANCE = 1e-3


def batches(start=0, reverse=False):
    generator = np.random.default_rng(0)
    shape = (STEPS, ROWS, 2, 2, SIZE, SIZE, 3)
    data = tf.data.Dataset.from_tensor_slices(
        {
            "frames": generator.integers(0, 256, shape, np.uint8),
            "shot_mask": np.ones((STEPS, ROWS, 2), bool),
            "video_id": np.arange(STEPS * ROWS).reshape(STEPS, ROWS),
        }
    )
    if reverse:
        data = data.map(lambda batch: {k: v[::-1] for k, v in batch.items()})
    return data.skip(start)


class Trial:
    """The checks of one encoder; each is a method, its name the column."""

    def __init__(self, name, folder):
        self.name, self.folder = name, pathlib.Path(folder)
        self.encoder = name
        if name == "vit":
            self.encoder = f"keras_hub:{self._make_vit()}"

    def _make_vit(self):
        import keras_hub

        keras.utils.set_random_seed(0)
        path = str(self.folder / "vit")
        vit = keras_hub.models.ViTBackbone((SIZE, SIZE, 3), 8, 2, 2, 32, 64)
        vit.save_to_preset(path)
        keras_hub.layers.ImageConverter(scale=1 / 255).save_to_preset(path)
        return path

    def model(self, **options):
        keras.utils.set_random_seed(0)
        small = {}
        if self.name == "resnet50v2":
            small = {"width": 0.25, "units": (1, 1, 1, 1)}
        weights = "auto" if self.name == "vit" else "none"
        encoder = make_encoder(self.encoder, weights, **small)
        level = make_level("shot_exemplar", loss="nt_xent", head_units=32)
        # Plain `fit` does not number the rows of replicas, which colours
        # would need to be those of one replica.
        model = ViviModel(encoder, Objective([level]), views=None, **options)
        # At a higher rate, features of some networks grow a millionfold, as
        # their moving averages lag behind: then rounding shows.
        model.compile(keras.optimizers.SGD(1e-4, momentum=0.9))
        return model

    def trained(self, replicas=1, steps=STEPS, reverse=False, **options):
        strategy = strategies.make_strategy(
            "mirrored" if replicas > 1 else "one"
        )
        with strategy.scope():
            model = self.model(**options)
        model.build_from(replica_spec(batches().element_spec, replicas))
        before = _trainable(model)
        model.fit(batches(reverse=reverse).take(steps), verbose=0)
        return model, before

    def step(self):
        self.plain, before = self.trained()
        assert np.isfinite(_trainable(self.plain)).all()
        variables = self.plain.trainable_variables
        ends = np.cumsum([v.shape.num_elements() for v in variables])[:-1]
        moved = np.split(_trainable(self.plain) != before, ends)
        # Not all: ConvNeXt scales its blocks by 1e-6 at first.
        assert np.mean([part.any() for part in moved]) > 0.5

    def micro_batches(self):
        model, before = self.trained(micro_batches=2)
        assert np.isfinite(_trainable(model)).all()
        assert np.any(_trainable(model) != before)

    def bfloat16(self):
        with strategies.precision_scope("bfloat16"):
            model, before = self.trained()
            assert np.any(_trainable(model) != before)
            features = model.encoder(np.zeros((1, SIZE, SIZE, 3), "float32"))
            assert features.dtype == "float32", features.dtype

    def resume(self):
        first = self.model()
        first.build_from(batches().element_spec)
        first.fit(batches().take(1), verbose=0)
        manager = checkpoints.CheckpointManager(first, self.folder / "run")
        manager.save(wait=True)
        second = self.model()
        second.build_from(batches().element_spec)
        checkpoints.CheckpointManager(second, self.folder / "run").restore()
        second.fit(batches(1), verbose=0)
        for a, b in zip(self.plain.variables, second.variables, strict=True):
            if a.path.rpartition("/")[2] != "totals":
                np.testing.assert_array_equal(a, b, err_msg=a.path)

    def replicas(self):
        one, before = self.trained(steps=1)
        moved = np.abs(_trainable(one) - before).max()

        def apart(**options):
            other, _ = self.trained(steps=1, **options)
            return np.abs(_trainable(other) - _trainable(one)).max() / moved

        found = apart(replicas=2)
        # The loss does not depend on the order of rows; its rounding does.
        if not found < max(REPLICA_TOLERANCE, apart(reverse=True)):
            return f"{found:.4f} of the way apart"

    def export(self):
        self.path = export_encoder(
            self.plain.encoder,
            self.folder / "module",
            metadata={"image_size": [SIZE, SIZE]},
        )

    def verify(self):
        from vivi_keras.export.verify import verify

        missed = [row for row in verify(self.path) if row[1] == "MISS"]
        return "; ".join(" ".join(map(str, row)) for row in missed)

    def hub_encoder(self):
        images = np.random.default_rng(0).uniform(0, 1, (2, 48, 40, 3))
        images = images.astype("float32")
        # A graph, whose rounding differs from single calls.
        expected = tf.function(self.plain.encoder)(images).numpy()
        np.testing.assert_allclose(
            HubEncoder(self.path)(images),
            expected,
            rtol=0,
            atol=1e-4 * np.abs(expected).max(),
        )

    def tflite(self):
        from vivi_keras.export import convert

        convert.to_tflite(self.path, str(self.folder / "e.tflite"))

    def onnx(self):
        from vivi_keras.export import convert

        convert.to_onnx(self.path, str(self.folder / "e.onnx"))

    def evaluate(self):
        from vivi_keras.features.encoder import load_encoder

        images = np.random.default_rng(0).uniform(0, 1, (3, SIZE, SIZE, 3))
        assert load_encoder(self.path).features(images).shape[0] == 3


CHECKS = (
    "step",
    "micro_batches",
    "bfloat16",
    "resume",
    "replicas",
    "export",
    "verify",
    "hub_encoder",
    "tflite",
    "onnx",
    "evaluate",
)


def _trainable(model):
    return np.concatenate([np.ravel(v) for v in model.trainable_variables])


def try_encoder(name):
    """Dict: check -> "yes" or what went wrong."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(name, folder)
        for check in CHECKS:
            try:
                found[check] = getattr(trial, check)() or "yes"
            except Exception as error:  # whatever it is, the table tells it
                found[check] = f"{type(error).__name__}: {reason(error)[:200]}"
            print(f"{name} {check}: {found[check]}", file=sys.stderr)
    return found


def main(names):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    print("| encoder | " + " | ".join(CHECKS) + " |")
    print("|" + "---|" * (len(CHECKS) + 1), flush=True)
    for name in names or NAMES:
        found = try_encoder(name)
        print(f"| {name} | " + " | ".join(found.values()) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
