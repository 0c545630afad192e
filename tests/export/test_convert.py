"""TFLite and ONNX: the same features in another run time."""

import json

import keras
import numpy as np
import pytest
from sklearn import datasets

import vivi_keras
from vivi_keras.export import convert, main

pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

SIZE = (48, 64)


@pytest.fixture(scope="module")
def frames():
    """float32 [24, 48, 64, 3]: pieces of scikit-learn's two photographs."""
    photographs = datasets.load_sample_images().images  # uint8 [427, 640, 3]
    pieces = [
        photograph[
            row : row + 2 * SIZE[0] : 2, column : column + 2 * SIZE[1] : 2
        ]
        for photograph in photographs
        for row in (0, 150, 300)
        for column in (0, 150, 300, 450)
    ]
    return np.stack(pieces).astype("float32") / 255


@pytest.fixture(scope="module")
def encoder(frames):
    keras.utils.set_random_seed(3)
    encoder = vivi_keras.ResNet50V2(width=0.125, units=(1, 1, 1, 1))
    for _ in range(20):
        encoder(frames, training=True)  # batch norm as after training
    return encoder


@pytest.fixture(scope="module")
def path(encoder, tmp_path_factory):
    return vivi_keras.export_encoder(
        encoder,
        tmp_path_factory.mktemp("convert") / "module",
        metadata={"image_size": SIZE, "row": "demo"},
    )


def close(got, expected):
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(got, expected, atol=1e-4 * scale)
    assert np.abs(expected).max() > 100e-4 * scale


def test_tflite_gives_the_module_s_features(path, encoder, frames, tmp_path):
    report = convert.to_tflite(path, tmp_path / "m.tflite")
    encode = convert.load_tflite(tmp_path / "m.tflite")
    for count in (1, len(frames)):
        close(encode(frames[:count]), encoder(frames[:count]).numpy())
    told = json.loads((tmp_path / "m.tflite.json").read_text())
    assert told == report and told["row"] == "demo"
    assert told["converted"]["image_size"] == list(SIZE)
    assert told["converted"]["bytes"] == (tmp_path / "m.tflite").stat().st_size


def test_onnx_takes_any_size_and_batch(path, encoder, frames, tmp_path):
    convert.to_onnx(path, tmp_path / "m.onnx")
    encode = convert.load_onnx(tmp_path / "m.onnx")
    for images in (frames, frames[:1], frames[:3, :40, :33]):
        close(encode(images), encoder(images).numpy())


def test_onnx_of_a_network_that_holds_constants(frames, tmp_path):
    # As EfficientNetV2 of keras.applications does; and the GELU of a ViT.
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Normalization(
                mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3]
            ),
            layers.Conv2D(8, 3),
            layers.Activation("gelu"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    path = vivi_keras.export_encoder(
        network, tmp_path / "module", metadata={"image_size": SIZE}
    )
    convert.to_onnx(path, tmp_path / "m.onnx")
    encode = convert.load_onnx(tmp_path / "m.onnx")
    close(encode(frames), network(frames).numpy())


def test_onnx_of_grouped_convolutions_is_refused(tmp_path):
    network = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(6, 3, groups=3),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    path = vivi_keras.export_encoder(
        network, tmp_path / "module", metadata={"image_size": SIZE}
    )
    with pytest.raises(ValueError, match="grouped convolutions.* Got: 1, such"):
        convert.to_onnx(path, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_int8_is_small_and_near(path, encoder, frames, tmp_path):
    convert.to_tflite(path, tmp_path / "f.tflite")
    report = convert.to_tflite(
        path, tmp_path / "q.tflite", calibration=frames[::2]
    )
    sizes = [(tmp_path / f"{n}.tflite").stat().st_size for n in "fq"]
    assert sizes[1] < 0.45 * sizes[0]
    encode = convert.load_tflite(tmp_path / "q.tflite")
    got, expected = encode(frames[1::2]), encoder(frames[1::2]).numpy()
    cosines = np.sum(got * expected, axis=1) / (
        np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
    )
    assert 0.95 < cosines.min() < 0.9999  # near, and not float after all
    assert 0.97 < report["converted"]["mean_cosine"] < 0.9999
    scores = convert.knn_accuracies({"float32": encoder, "int8": encode}, SIZE)
    assert scores["float32"] > 0.6
    assert abs(scores["int8"] - scores["float32"]) < 0.03


def test_bad_calibration_is_refused(path, frames, tmp_path):
    for bad, message in (
        (frames * 255, r"in \[0, 1\]"),
        (frames[:0], "at least one"),
        (frames[:, :40], "48, 64"),
        ((frames * 255).astype("uint8"), "Got: uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            convert.to_tflite(path, tmp_path / "m.tflite", calibration=bad)
    assert not list(tmp_path.iterdir())


def test_a_wrong_conversion_is_noticed(path, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "load_onnx", lambda file: wrong)

    def wrong(images):
        return convert.load_module(path)(images) + 0.01

    (tmp_path / "m.onnx").write_text("an older one")
    with pytest.raises(ValueError, match="conversion is wrong"):
        convert.to_onnx(path, tmp_path / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "an older one"
    with pytest.raises(IsADirectoryError, match="output must be a file"):
        convert.to_onnx(path, tmp_path)


def test_a_missing_package_is_named(path, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"vivi-keras\[convert\]"):
        convert.to_onnx(path, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "One of --workdir and --module"),
        ({"workdir": "a", "module": "b"}, "One of --workdir and --module"),
        ({"module": "b"}, "--output must be given"),
        (
            {"module": "b", "output": "o", "ema": True},
            "--ema, --step and --weights_dtype must be given with",
        ),
        (
            {"module": "b", "output": "o", "calibration": "d"},
            "must be given with --format=tflite",
        ),
        (
            {
                "module": "b",
                "output": "o",
                "package": "a/b/1",
                "format": "onnx",
            },
            "without --format",
        ),
    ],
)
def test_flags_that_do_not_fit_are_named(flags, message):
    from absl import app
    from absl import flags as absl_flags
    from absl.testing import flagsaver

    if not absl_flags.FLAGS.is_parsed():
        absl_flags.FLAGS.mark_as_parsed()
    with (
        flagsaver.flagsaver(**flags),
        pytest.raises(app.UsageError, match=message),
    ):
        main.main(["vivi-export"])


def test_the_command_converts_a_module(path, encoder, frames, tmp_path):
    from absl import flags as absl_flags
    from absl.testing import flagsaver

    if not absl_flags.FLAGS.is_parsed():
        absl_flags.FLAGS.mark_as_parsed()
    for kind, encode in (
        ("tflite", convert.load_tflite),
        ("onnx", convert.load_onnx),
    ):
        output = str(tmp_path / kind / f"m.{kind}")
        with flagsaver.flagsaver(module=path, output=output, format=kind):
            main.main(["vivi-export"])
        close(encode(output)(frames), encoder(frames).numpy())
        assert (tmp_path / kind / f"m.{kind}.json").is_file()
