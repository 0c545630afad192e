"""EfficientNet-Lite is the published network, and its weights are read."""

import os
import pathlib
import pickle
import sys

import keras
import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from vivi_keras.export.metadata import golden_images
from vivi_keras.files import packages
from vivi_keras.models import efficientnet, encoders, registry, weights

# Of the PyTorch networks (efficientnet-lite-pytorch 0.1.0, PyTorch 2.13) with
# the same weights: every fifth feature of the golden images, and the class
# with the highest logit of three photographs.
EXPECTED = np.load(pathlib.Path(__file__).with_name("efficientnet_lite.npz"))


def photographs():
    """uint8 [3, 224, 224, 3]: the middle of three photographs."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        person = np.asarray(Image.open(file).convert("RGB"))
    made = []
    for image in (
        load_sample_image("china.jpg"),
        load_sample_image("flower.jpg"),
        person,
    ):
        side = min(image.shape[:2])
        top, left = ((length - side) // 2 for length in image.shape[:2])
        middle = image[top : top + side, left : left + side]
        small = Image.fromarray(middle).resize(
            (224, 224), Image.Resampling.BILINEAR
        )
        made.append(np.asarray(small))
    return np.stack(made)


# Fetches a package of 17 to 23 MB.
@pytest.mark.slow
@pytest.mark.parametrize("version", efficientnet.VERSIONS)
def test_it_gives_the_features_of_the_pytorch_network(version):
    encoder = efficientnet.EfficientNetLite(version)
    try:
        encoder.load_imagenet(registry.cache_directory())
    except packages.Unavailable as error:
        pytest.skip(str(error))
    found = np.asarray(encoder(golden_images() / np.float32(255)))[:, ::5]
    expected = EXPECTED[f"features{version}"]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    (file,) = efficientnet.package(version).members
    folder = packages.fetch(
        efficientnet.package(version), registry.cache_directory()
    )
    state = weights.read_torch(folder / file)
    features = np.asarray(encoder(photographs() / np.float32(255)))
    logits = features @ state["_fc.weight"].T + state["_fc.bias"]
    np.testing.assert_array_equal(logits.argmax(1), EXPECTED[f"top1_{version}"])


# A file of PyTorch 2.13, saved in its old format: "a" counts to 5, "b" to 23
# with its axes turned, "n" is 7.
LEGACY = pathlib.Path(__file__).with_name("legacy.pth")


def test_a_file_of_pytorch_is_read():
    state = weights.read_torch(LEGACY)
    assert list(state) == ["a", "b", "n"]
    np.testing.assert_array_equal(
        state["a"], np.arange(6, dtype="float32").reshape(2, 3)
    )
    turned = np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)
    np.testing.assert_array_equal(state["b"], turned)
    assert state["n"] == 7 and state["n"].dtype == np.int64


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_file_that_is_damaged_or_does_harm_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole, file = LEGACY.read_bytes(), tmp_path / "bad.pth"
    harm = pickle.dumps(weights.TORCH_MAGIC, 2) + pickle.dumps(Harm(), 2)
    for content, said in (
        (whole[:-9], "cut short"),
        (whole[:40], "bad.pth must be a dict of tensors"),
        (whole.replace(b"collections", b"subprocess_"), "subprocess_"),
        (harm, "the name posix.mkdir"),
        (pickle.dumps(1), "another kind of file"),
        (b"PK\x03\x04", "bad.pth must be a dict of tensors"),
        (b"", "bad.pth must be a dict of tensors"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=said):
            weights.read_torch(file)
    assert not (tmp_path / "harm").exists()


def torch_state(encoder):
    """The encoder's weights as the PyTorch network would have them."""
    state = {"_fc.bias": np.zeros(1000), "_bn0.num_batches_tracked": 3}
    for layer in encoder.layers:
        for variable in layer.weights:
            name, axes = efficientnet._torch_name(layer, variable)
            value = np.asarray(variable)
            if axes is not None:
                value = value.transpose(np.argsort(axes))
            state[name] = value
    return state


def test_weights_of_another_version_are_refused():
    keras.utils.set_random_seed(0)
    encoder = efficientnet.EfficientNetLite(0)
    state = torch_state(encoder)
    assert state["_blocks.0._depthwise_conv.weight"].shape == (32, 1, 3, 3)
    other = efficientnet.EfficientNetLite(0)
    other.load_state(state)
    images = golden_images() / np.float32(255)
    np.testing.assert_array_equal(other(images), encoder(images))
    first = r"unit3_depthwise_conv/kernel is \[5, 5, 144, 1\] there, \[3, 3,"
    with pytest.raises(ValueError, match=first + ".* weights there, "):
        efficientnet.EfficientNetLite(1).load_state(state)
    with pytest.raises(
        ValueError,
        match=r"unit\d+_\w+/\w+ is \[.*\] there, \[.*\] here",
    ):
        efficientnet.EfficientNetLite(2).load_state(state)
    with pytest.raises(ValueError, match=r"extra \[2\] is not known here"):
        other.load_state({**state, "extra": np.zeros(2)})


def test_a_damaged_file_in_the_cache_is_refused(tmp_path):
    package = efficientnet.package(0)
    folder = tmp_path / "packages" / package.folder
    file = folder / package.members[0]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"other")
    with pytest.raises(ValueError, match="must have the SHA-256 5793442.* Got"):
        efficientnet.EfficientNetLite(0).load_imagenet(tmp_path)


@pytest.mark.parametrize(
    ("found", "message"),
    [(object(), "could not fetch effic"), (None, "is fetched by pip, which")],
)
def test_a_package_that_cannot_be_had_is_one_message(
    tmp_path, monkeypatch, found, message
):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _: found)
    with pytest.raises(packages.Unavailable, match=message):
        encoders.make_encoder("efficientnet_lite0", cache=tmp_path)


def test_a_saved_network_loads(tmp_path):
    encoder = efficientnet.EfficientNetLite(1, weight_decay=1e-3)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    images = golden_images() / np.float32(255)
    np.testing.assert_array_equal(loaded(images), encoder(images))
    assert len(loaded.losses) == len(encoder.losses) > 40
