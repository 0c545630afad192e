"""Videos and labelled images in one model: what each level sees of them."""

import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from vivi_keras.objective import Objective, make_level
from vivi_keras.runs import batches as batches_lib
from vivi_keras.runs import build, run
from vivi_keras.trainer.model import ViviModel
from vivi_keras.training import configs
from vivi_keras.training.configs import rows

SIZE = 24


def tiny(name, **objective):
    """The config of a row, small; objective: level -> weight."""
    config = configs.get_config(name)
    config.data.update(image_size=SIZE, num_shots=3)
    config.model.update(encoder="resnet50v2", width=0.125, units=(1, 1, 1, 1))
    for level, weight in objective.items():
        config.objective[level].weight = weight
    if "supervised" in config.objective:
        config.objective.supervised.num_classes = 3
    return config


def mixed(steps=3, images=6, videos=4, copies=None):
    """Batches with all keys; an image's brightness is its class."""
    generator = np.random.default_rng(0)
    frames = generator.integers(
        0, 256, (steps, videos, 3, 2, SIZE, SIZE, 3), np.uint8
    )
    labels = generator.integers(0, 3, (steps, images))
    shape = (steps, images, *([copies] if copies else []), SIZE, SIZE, 3)
    noise = generator.integers(0, 40, shape, np.uint8)
    light = (90 * labels).astype(np.uint8)
    light = light.reshape(steps, images, *[1] * (len(shape) - 2))
    return tf.data.Dataset.from_tensor_slices(
        {
            "frames": frames,
            "shot_mask": np.ones((steps, videos, 3), bool),
            "video_id": np.arange(steps * videos).reshape(steps, videos),
            "image": noise + light,
            "label": labels,
        }
    )


def only(batches, *names):
    return batches.map(lambda batch: {name: batch[name] for name in names})


VIDEO_KEYS = ("frames", "shot_mask", "video_id")


def trained(config, batches):
    model = build.build_model(config)
    model.fit(batches, verbose=0)
    return [np.asarray(v) for v in model.encoder.variables], model


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", rows.ROWS)
def test_every_row_builds_its_model(name):
    config = tiny(f"{name}_demo")
    model = build.build_model(config)
    model.build_from(build.element_spec(config))
    kinds = {"from_scratch": (), "rotation": ("images",)}.get(name)
    if kinds is None:
        videos = name.startswith(("vivi", "ex_yt", "adapt"))
        kinds = ("videos",) * videos
        kinds += ("images",) * (not videos or "_co" in name)
    if kinds:
        assert batches_lib.streams(config) == kinds
    labelled = "sup" in name or "semi" in name or "_co" in name
    assert (model.objective.classifier is not None) == (
        labelled or name == "from_scratch"
    )
    paper = configs.get_config(name)
    assert paper.model.width == (3.0 if "_big" in name else 1.0)
    if "supervised" in paper.objective:
        share = 0.1 if name.endswith("10") else 1.0
        assert paper.data.images.label_fraction == share


def test_without_gamma_it_is_the_run_on_videos_alone():
    both, model = trained(tiny("vivi_ex4_co100_demo", supervised=0.0), mixed())
    videos, _ = trained(tiny("vivi_ex4_demo"), only(mixed(), *VIDEO_KEYS))
    assert_equal(both, videos)
    assert "supervised_loss" not in model.metric_names
    start = build.build_encoder(tiny("vivi_ex4_demo")).variables
    assert np.abs(both[0] - np.asarray(start[0])).max() > 1e-5


def test_without_self_supervision_it_is_the_supervised_run():
    weights = {"shot_exemplar": 0.0, "video_info_nce": 0.0}
    config = tiny("vivi_ex4_co100_demo", **weights)
    config.data.images.batch_size = 6
    both, _ = trained(config, mixed())
    supervised, _ = trained(
        tiny("sup_100_demo"), only(mixed(), "image", "label")
    )
    assert_equal(both, supervised)


def model_of(levels, **arguments):
    keras.utils.set_random_seed(0)
    encoder = build.build_encoder(tiny("sup_100_demo"))
    model = ViviModel(encoder, Objective(levels), views=None, **arguments)
    model.compile(keras.optimizers.SGD(0.0))
    return model


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("copies", [None, 2])
def test_supervised_loss_is_that_of_the_images(separate, copies):
    model = model_of(
        [
            make_level("shot_exemplar", head_units=16),
            make_level("supervised", num_classes=3),
        ],
        separate_passes=separate,
    )
    batch = next(iter(mixed(copies=copies)))
    model.build_from(batch)
    losses, weights, _ = model(batch, training=False)["supervised"]
    views = tf.reshape(batch["image"], (-1, SIZE, SIZE, 3))
    expected = keras.losses.sparse_categorical_crossentropy(
        np.repeat(batch["label"], 1 if copies is None else copies),
        model.classify(views),
        from_logits=True,
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(weights, np.ones(len(losses)))
    # An image without a label keeps its place and does not count.
    hidden = {**batch, "label": tf.where(batch["label"] == 1, -1, 0)}
    weights = model(hidden, training=False)["supervised"][1]
    shown = np.repeat(batch["label"] != 1, 1 if copies is None else copies)
    np.testing.assert_array_equal(weights, shown)


def test_moving_averages_take_in_what_they_are_told():
    def averages(batches, **arguments):
        model = model_of(
            [
                make_level("shot_exemplar", head_units=16),
                make_level("supervised", num_classes=3),
            ],
            **arguments,
        )
        model.fit(batches, verbose=0)
        return [np.asarray(v) for v in model.encoder.non_trainable_variables]

    def videos_alone():
        model = model_of([make_level("shot_exemplar", head_units=16)])
        model.fit(only(mixed(1), *VIDEO_KEYS), verbose=0)
        return [np.asarray(v) for v in model.encoder.non_trainable_variables]

    separate = {"separate_passes": True}
    videos = averages(mixed(1), statistics="videos", **separate)
    assert_equal(videos, videos_alone())
    for other in (
        averages(mixed(1), statistics="images", **separate),
        averages(mixed(1), **separate),
        averages(mixed(1)),
    ):
        assert any((a != b).any() for a, b in zip(videos, other, strict=True))


def test_weight_of_a_level_warms_up():
    level = make_level("supervised", num_classes=3, weight=0.5, warmup_steps=4)
    steps = [float(level.weight_at(step)) for step in (0, 1, 3, 9)]
    assert steps == [0.125, 0.25, 0.5, 0.5]
    model = model_of([make_level("rotation"), level])
    history = model.fit(
        only(mixed(2), "image", "label").repeat(2), verbose=0, epochs=1
    ).history
    decay = sum(float(x) for x in model.losses)
    weights = np.mean([level.weight_at(step) for step in range(4)])
    # SGD(0): the supervised loss of a batch is the same in both rounds.
    both = history["rotation_loss"][0] + decay
    assert history["loss"][0] - both < history["supervised_loss"][0] * 0.5
    assert history["loss"][0] - both > history["supervised_loss"][0] * 0.2
    assert 0.2 < weights < 0.5


def test_bad_batches_and_settings_are_named():
    images = only(mixed(), "image", "label")
    shot = [make_level("shot_exemplar", head_units=16)]
    with pytest.raises(ValueError, match="must hold what .*: videos"):
        model_of(shot).fit(images, verbose=0)
    with pytest.raises(ValueError, match="shot_exemplar.*with videos. Got: im"):
        model_of([*shot, make_level("rotation")]).fit(images, verbose=0)
    with pytest.raises(ValueError, match="supervised.*with images. Got: vid"):
        model_of([*shot, make_level("supervised", num_classes=3)]).fit(
            only(mixed(), *VIDEO_KEYS), verbose=0
        )
    with pytest.raises(ValueError, match="one .height, width.*24.*12"):
        small = mixed().map(
            lambda batch: {**batch, "image": batch["image"][:, :12, :12]}
        )
        model_of([*shot, make_level("rotation")]).fit(small, verbose=0)
    with pytest.raises(ValueError, match="needs separate_passes=True"):
        model_of(shot, statistics="videos")
    with pytest.raises(
        ValueError, match="images.batch_size must be > 0, as level 'sup"
    ):
        config = tiny("sup_100_demo")
        config.data.images.batch_size = 0
        build.build_model(config)


def test_a_label_out_of_range_is_not_finite():
    model = model_of([make_level("supervised", num_classes=2)])
    batch = next(iter(only(mixed(), "image", "label")))
    model.build_from(batch)
    losses = model(batch, training=False)["supervised"][0]
    np.testing.assert_array_equal(np.isnan(losses), batch["label"] >= 2)


@pytest.fixture
def pets(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 6)):
        for place, name in enumerate(("cat", "dog", "owl")):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = generator.integers(0, 60, (20, 26, 3), np.uint8)
                Image.fromarray(pixels + np.uint8(90 * place)).save(
                    folder / f"{k}.png"
                )
    (tmp_path / "pets/train/cat/broken.png").write_bytes(b"no image")
    return tmp_path / "pets"


def test_a_folder_is_learned_and_tested(pets, tmp_path, capsys):
    def config(steps):
        settings = tiny("sup_10_demo")
        settings.objective.supervised.num_classes = 0
        settings.data.images.update(
            dataset=str(pets), label_fraction=0.5, batch_size=12
        )
        settings.train.update(
            steps=steps, log_every_steps=10, test_every_steps=10
        )
        settings.schedule.update(name="constant", warmup_steps=0)
        return settings

    whole = run.pretrain(config(30), tmp_path / "whole", verbose=0)
    assert "broken.png" in capsys.readouterr().out
    lines = (tmp_path / "whole/metrics.csv").read_text().splitlines()
    table = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert float(table["test_top1"]) > 0.9 and "test_top5" not in table
    encoder, metadata = build.restore_encoder(tmp_path / "whole")
    assert metadata["config"]["data"]["images"]["class_names"] == [
        "cat",
        "dog",
        "owl",
    ]
    assert metadata["training_data"]["label_fraction"] == 0.5
    assert_equal(
        [np.asarray(v) for v in encoder.variables],
        [np.asarray(v) for v in whole.encoder.variables],
    )
    # The published module classifies as the model does.
    printed = export_main(
        f"--workdir={tmp_path / 'whole'}",
        f"--output={tmp_path / 'module'}",
        "--test",
    )
    top1 = re.search(r"^test_top1: ([\d.]+)$", printed, re.MULTILINE)[1]
    assert float(top1) == pytest.approx(float(table["test_top1"]), abs=1e-4)
    # Another run starts from its encoder, and only one of the same model can.
    other = config(0)
    other.objective.supervised.num_classes = 3
    other.model.init = str(tmp_path / "whole")
    began = run.pretrain(other, tmp_path / "other", verbose=0)
    assert_equal(
        [np.asarray(v) for v in encoder.variables],
        [np.asarray(v) for v in began.encoder.variables],
    )
    other.model.width = 0.25
    with pytest.raises(ValueError, match="model.init=.*must have the same"):
        run.pretrain(other, tmp_path / "wider", verbose=0)


def export_main(*flags):
    command = [sys.executable, "-m", "vivi_keras.export.main", *flags]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def test_the_encoder_before_training_needs_no_data(tmp_path):
    config = tiny("from_scratch_demo")
    model = run.pretrain(config, tmp_path / "run", verbose=0)
    encoder, metadata = build.restore_encoder(tmp_path / "run")
    assert metadata["steps"] == 0
    values = [np.asarray(v) for v in model.encoder.variables]
    assert_equal([np.asarray(v) for v in encoder.variables], values)
    output = str(tmp_path / "encoder")
    export_main(f"--workdir={tmp_path / 'run'}", f"--output={output}")
    module = tf.saved_model.load(output)
    assert "classify" not in module.signatures  # it never saw a label
    assert sum(np.size(v) for v in module.variables) == sum(
        map(np.size, values)
    )
