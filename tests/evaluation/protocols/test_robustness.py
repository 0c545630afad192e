"""mCE and pm-k by hand, corruptions, and steadiness over near frames."""

import json

import data_helpers
import evaluation_modules
import numpy as np
import pytest
from PIL import Image

from vivi_keras.evaluation import evaluate
from vivi_keras.evaluation.protocols import (
    corruptions,
    natural_video,
    robustness,
)
from vivi_keras.evaluation.tasks import packages
from vivi_keras.evaluation.tasks import task as task_lib
from vivi_keras.features.cache import RawPixels
from vivi_keras.features.frames import Shot


def test_mce_by_hand():
    errors = {n: [e] * 5 for n, e in robustness.ALEXNET_ERRORS.items()}
    assert len(errors) == 15
    assert robustness.mean_corruption_error(errors) == pytest.approx(100.0)
    half = {n: np.multiply(e, 0.5) for n, e in errors.items()}
    assert robustness.mean_corruption_error(half) == pytest.approx(50.0)
    # One corruption at other errors moves the mean by its share of 15.
    half["fog"] = [0.1, 0.2, 0.3, 0.4, 0.5]
    expected = 50.0 + (100 * 0.3 / 0.819324 - 50.0) / 15
    assert robustness.mean_corruption_error(half) == pytest.approx(expected)
    del half["snow"]
    assert robustness.mean_corruption_error(half) is None
    with pytest.raises(ValueError, match="5 errors of fog"):
        robustness.mean_corruption_error({"fog": [0.1]})


def test_pm_k_by_hand():
    anchors = [True, True, False, True]
    near = [[True, True], [True, False], [True], []]
    found = robustness.pm_k(anchors, near)
    assert found == {"anchor": 0.75, "pm_k": 0.5}
    with pytest.raises(ValueError, match="anchors must not be empty"):
        robustness.pm_k([], [])


def picture(file, colour):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 18), colour).save(file)
    return file


def by_colour(files):
    """A classifier of the pictures above, in place of a probe."""
    names = {(255, 0, 0): "n1", (0, 255, 0): "n2"}
    return [names.get(Image.open(f).getpixel((0, 0)), "n3") for f in files]


def test_imagenet_c_folders(tmp_path):
    red, green = (255, 0, 0), (0, 255, 0)
    for severity in range(1, 6):
        for name, own in (("n1", red), ("n2", green)):
            for number in range(4):
                # At severity s, s - 1 of n1's four are taken for n2.
                wrong = name == "n1" and number < severity - 1
                picture(
                    tmp_path / f"weather/fog/{severity}/{name}/{number}.png",
                    green if wrong else own,
                )
    found = robustness.imagenet_c(by_colour, tmp_path, lambda line: None)
    assert found["errors"] == {"fog": [0.0, 0.125, 0.25, 0.375, 0.5]}
    assert found["mce"] is None and len(found["missing"]) == 14
    with pytest.raises(packages.Unavailable, match="class"):
        robustness.imagenet_c(by_colour, tmp_path / "nothing")


def video_set(folder):
    colours = {"r": (255, 0, 0), "g": (0, 255, 0)}
    for frame, colour in [("a0", "r"), ("a1", "r"), ("a2", "g"), ("b0", "g")]:
        picture(folder / f"val/{frame}.png", colours[colour])
    content = {
        "metadata/pmsets.json": {
            "val/a0.png": ["val/a1.png", "val/a2.png"],
            "val/b0.png": [],
        },
        "metadata/labels.json": {
            "val/a0.png": [0],
            "val/a1.png": [0, 1],
            "val/a2.png": [1],
            "val/b0.png": [1],
        },
        "misc/imagenet_vid_class_index.json": {
            "0": ["n1", "red"],
            "1": ["n2", "green"],
        },
    }
    for name, values in content.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(values))


def test_video_robust_folder(tmp_path):
    video_set(tmp_path)
    found = robustness.video_robust(by_colour, tmp_path)
    assert found == {"anchor": 1.0, "pm_k": 1.0, "anchors": 2}
    # a2 is green: wrong by its anchor's label, right by its own.
    found = robustness.video_robust(by_colour, tmp_path, True)
    assert found == {"anchor": 1.0, "pm_k": 0.5, "anchors": 2}
    (tmp_path / "val/a1.png").unlink()
    with pytest.raises(packages.Unavailable, match="a1.png"):
        robustness.video_robust(by_colour, tmp_path)


def test_published_suites_through_a_module(tmp_path):
    module = evaluation_modules.save(tmp_path / "tiny")
    video_set(tmp_path / "robust")
    for number in range(6):
        shade = 200 + 10 * number
        picture(tmp_path / f"train/n1/{number}.png", (shade, 0, 0))
        picture(tmp_path / f"train/n2/{number}.png", (0, shade, 0))
    results = evaluate.evaluate(
        module,
        tmp_path / "out",
        suite="vid_robust",
        data_dir=tmp_path / "robust",
        train_dir=tmp_path / "train",
        image_size=16,
        show=None,
    )
    assert [row["accuracy"] for row in results["rows"]] == [1.0, 1.0]
    assert (tmp_path / "out/results.json").is_file()
    with pytest.raises(ValueError, match="train_dir"):
        evaluate.evaluate(module, suite="imagenet_c", data_dir=tmp_path)


def test_the_old_name_warns(tmp_path):
    with (
        pytest.warns(DeprecationWarning, match="`evaluate` with suite") as told,
        pytest.raises(ValueError, match="train_dir"),
    ):
        evaluate.evaluate_robust(
            "m", suite_name="imagenet_c", data_dir=tmp_path
        )
    assert told[0].filename == __file__


def textured(count=4):
    """Patches of several sizes, 64 x 72 pixels, in [0.1, 0.9]."""
    generator = np.random.default_rng(0)
    total = 0.0
    for side in (2, 4, 8):
        shape = (count, 64 // side, 72 // side, 3)
        patches = generator.uniform(0.1, 0.9, shape)
        total += patches.repeat(side, axis=1).repeat(side, axis=2) / 3
    return total


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_corruptions_worsen_with_severity(name):
    images = textured(16).astype(np.float32)
    apart = []
    for severity in corruptions.SEVERITIES:
        found = corruptions.corrupt(images, name, severity)
        assert found.shape == images.shape and found.dtype == np.float32
        assert found.min() >= 0.0 and found.max() <= 1.0
        np.testing.assert_array_equal(
            found, corruptions.corrupt(images, name, severity)
        )
        apart.append(np.abs(found - images).mean())
    assert apart[0] > 0.005
    assert apart[-1] > (1.02 if name == "fog" else 1.2) * apart[0]
    if name not in ("fog", "pixelate"):  # these change in kind as well
        assert np.all(np.diff(apart) > 0)


def test_corruptions_by_hand():
    images = textured(2)
    found = corruptions.corrupt(images, "contrast", 3)
    expected = 0.2 * images + 0.8 * images.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 1e-6)
    grey = np.full((1, 8, 9, 3), 0.25)
    found = corruptions.corrupt(grey, "brightness", 2)
    np.testing.assert_allclose(found, 0.45, atol=0.5 / 255)
    found = corruptions.corrupt(textured(40), "impulse_noise", 4)
    changed = np.mean((found == 0) | (found == 1))
    assert changed == pytest.approx(0.17, abs=0.01)
    # Blurs keep the brightness of an even image to its edges.
    for name in ("gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur"):
        found = corruptions.corrupt(grey, name, 5)
        np.testing.assert_allclose(found, 64 / 255, atol=1e-6)
    with pytest.raises(ValueError, match="'mist' at 1"):
        corruptions.corrupt(grey, "mist", 1)


def test_probe_under_corruptions():
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = generator.integers(0, 60, (300, 16, 16, 3), np.uint8)
    for channel in range(3):
        images[labels == channel, :, :, channel] += 6
    both = task_lib.LabelledImages(images, labels)
    task = task_lib.ImageTask("colours", "natural", "rgb", both, both)
    encoder = RawPixels()
    values = encoder.features(images / np.float32(255))
    found = corruptions.run(
        encoder, task, values, labels, image_size=16, limit=60
    )
    assert found["num_test"] == 60 and found["clean"] > 0.95
    by = found["by_corruption"]
    assert set(by) == set(corruptions.CORRUPTIONS)
    assert found["accuracy"] == pytest.approx(
        np.mean([np.mean(v) for v in by.values()])
    )
    # Noise drowns the colours, a blur of an even image does not.
    assert by["gaussian_noise"][4] < 0.9 < by["gaussian_blur"][4]


def made_shot(index, colours, seconds):
    frames = [np.full((12, 20, 3), c, np.uint8) for c in colours]
    return Shot("v", 0, index, 0.0, 9.0, frames, np.asarray(seconds))


def test_steadiness_by_hand(monkeypatch):
    red, green, blue = (250, 9, 9), (9, 250, 9), (9, 9, 250)
    shots = [
        # 3 s is too far; of the two near frames one has become green.
        made_shot(0, [red, green, red, red], [0.2, 0.6, 1.0, 4.0]),
        made_shot(1, [green, green, green], [0.0, 0.5, 1.0]),
        made_shot(2, [blue], [0.0]),  # no near frames: not counted
    ]
    monkeypatch.setattr(natural_video, "shot_frames", lambda *unused: shots)
    images = np.stack(
        [np.full((6, 6, 3), c, np.uint8) for c in (red, green, blue) * 8]
    )
    labelled = task_lib.LabelledImages(images, np.arange(24) % 3)
    task = task_lib.ImageTask("rgb", "natural", "rgb", labelled, labelled)
    found = natural_video.run(RawPixels(), "data", image_size=16, task=task)
    assert (found["num_shots"], found["num_near"]) == (2, 4)
    assert found["accuracy"] == 0.75 and found["shots_steady"] == 0.5
    assert found["class_kept"] == 0.75 and found["shots_class_kept"] == 0.5
    assert found["cosine_near"] > found["cosine_other"]
    monkeypatch.setattr(natural_video, "shot_frames", lambda *unused: shots[1:])
    with pytest.raises(packages.Unavailable, match="at least 2"):
        natural_video.run(RawPixels(), "data", image_size=16)


def test_video_suite_on_a_prepared_data_set(tmp_path):
    examples = [data_helpers.video_example(v, [5, 4]) for v in range(3)]
    dataset = data_helpers.write_dataset(tmp_path / "data", examples)
    module = evaluation_modules.save(tmp_path / "tiny")
    results = evaluate.evaluate(
        module,
        tmp_path / "out",
        suite="video",
        data_dir=dataset,
        image_size=16,
        show=None,
    )
    for row in results["rows"]:
        assert row["num_shots"] >= 2 and 0.0 <= row["accuracy"] <= 1.0
