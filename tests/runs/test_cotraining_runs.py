"""Whole runs on videos and labelled images: every row, stops, bad input."""

import csv
import json
import shutil
import signal
import subprocess
import sys

import data_helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from run_helpers import stop_at

from vivi_keras.data import records
from vivi_keras.export import main as export
from vivi_keras.runs import batches, build, checkpoints, run
from vivi_keras.runs import workdir as workdir_lib
from vivi_keras.training import configs
from vivi_keras.training.configs import rows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Flags' values: a data set of 8 videos, 3 classes of 10 images."""
    folder = tmp_path_factory.mktemp("data")
    data_helpers.write_dataset(
        folder / "dataset",
        [data_helpers.video_example(v, [3] * 5) for v in range(8)],
    )
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 3)):
        for place, name in enumerate(("cat", "dog", "owl")):
            (folder / "pets" / split / name).mkdir(parents=True)
            for k in range(count):
                noise = generator.integers(0, 60, (20, 26, 3), np.uint8)
                Image.fromarray(noise + np.uint8(90 * place)).save(
                    folder / "pets" / split / name / f"{k}.png"
                )
    return folder


def small(data, name, **train):
    """The config of a row on few small images."""
    config = configs.get_config(name)
    config.data.update(dataset=str(data / "dataset"), image_size=32)
    config.data.images.update(dataset=str(data / "pets"), test_split="test")
    config.model.update(
        encoder="resnet50v2",
        width=0.125 * (3 if "_big" in name else 1),
        units=(1, 1, 1, 1),
    )
    config.adapt.warmup_head_steps = 0
    for part in (config.data, config.data.images):
        part.batch_size = min(part.batch_size, 4)
    images = config.data.images
    images.unlabelled_batch_size = min(images.unlabelled_batch_size, 4)
    images.copies = min(images.copies, 2)
    config.train.update(train)
    return config


@pytest.mark.slow  # a model traced for each row
@pytest.mark.parametrize(
    "name", [*rows.ROWS, "vivi_ex4_co10_demo", "adapt_frame_demo"]
)
def test_every_row_takes_two_steps(data, tmp_path, name):
    config = small(data, name)
    config.train.steps = min(config.train.steps, 2)
    model = run.pretrain(config, tmp_path, verbose=0)
    assert int(model.step) == (0 if name.startswith("from_scratch") else 2)
    fresh = build.build_encoder(config)
    assert model.encoder.count_params() == fresh.count_params()
    moved = 0.0
    for variable, before in zip(
        model.encoder.trainable_variables,
        fresh.trainable_variables,
        strict=True,
    ):
        assert np.isfinite(variable).all()
        moved += np.abs(np.subtract(variable, before)).max()
    assert (moved > 0) == (int(model.step) > 0)
    keras.backend.clear_session()


def both(data):
    """A mixed run with everything that a resumed one could get wrong."""
    config = small(
        data,
        "vivi_ex4_co10_demo",
        steps=10,
        log_every_steps=4,
        checkpoint_every_steps=3,
        keep_checkpoints=9,
        test_every_steps=4,
        average_decay=0.9,
    )
    config.data.images.update(
        label_fraction=0.5,
        unlabelled_batch_size=2,
        augment="rand_augment",
    )
    config.objective.supervised.warmup_steps = 8
    config.schedule.warmup_steps = 4
    return config


def assert_same_checkpoints(one, other, step):
    first, second = (
        checkpoints.read_checkpoint(folder / "checkpoints" / f"step_{step:08d}")
        for folder in (one, other)
    )
    assert first.keys() == second.keys() and len(first) > 50
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_killed_a_mixed_run_ends_with_the_same_bits(data, tmp_path):
    whole = run.pretrain(both(data), tmp_path / "whole", verbose=0)
    # What a kill after step 4 leaves: step 3, and a log that went further.
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    folder = tmp_path / "parts" / "checkpoints"
    first, *later = sorted(folder.glob("step_*"))
    assert first.name == "step_00000003" and len(later) >= 3
    for path in later:
        shutil.rmtree(path)
    parts = run.pretrain(both(data), tmp_path / "parts", verbose=0)
    assert int(parts.step) == int(whole.step) == 10
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "parts", 10)
    tables = []
    for name in ("whole", "parts"):
        with (tmp_path / name / "metrics.csv").open() as file:
            tables.append([*csv.DictReader(file)])
    for one, other in zip(*tables, strict=True):
        for name in ("step", "loss", "supervised_accuracy", "test_top1"):
            assert one[name] == other[name] != "", name


def command(data, workdir, *flags, row="vivi_ex4_co100_demo"):
    return [
        *(sys.executable, "-m", "vivi_keras.training.pretrain"),
        f"--config={row}",
        f"--config.data.dataset={data / 'dataset'}",
        f"--config.data.images.dataset={data / 'pets'}",
        f"--workdir={workdir}",
        "--config.data.batch_size=4",
        "--config.data.images.batch_size=4",
        "--config.data.image_size=24",
        "--config.model.width=0.125",
        "--config.train.steps=13",
        "--config.train.log_every_steps=5",
        "--config.train.checkpoint_every_steps=3",
        *flags,
    ]


@pytest.mark.slow  # starts TensorFlow five times
def test_a_mixed_run_survives_signals(data, tmp_path):
    subprocess.run(command(data, tmp_path / "whole"), check=True)
    workdir = tmp_path / "parts"
    parts = command(data, workdir)
    ends = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75}
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        status = stop_at(parts, workdir, "step", number, 0.02)
        assert status == ends[number]
    subprocess.run(parts, check=True)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "parts", 13)


BAD = {
    "data.images.label_fraction=0": r"fraction must be in \(0, 1\]. Got: 0",
    "data.images.label_fraction=1.5": r"fraction must be in \(0, 1\]. Got: 1.5",
    "data.images.label_fraction=0.01": "'cat' leaves none",
    "data.images.label_subset=mine": (
        "label_subset must be '15 images.*Got: 'mine'"
    ),
    "data.images.class_names=('cat', 'cow')": (
        "class_names must .*Got: .'cat', 'cow"
    ),
    "data.images.batch_size=0": (
        "images.batch_size must be > 0, as level 'supervised'"
    ),
    "data.images.batch_size=-1": "config.data.images.batch_size must be .*-1",
    "data.batch_size=9": "config.data: .*at most the 8 records.*Got: 9",
    "data.images.split=val": r"a folder 'val' .*\['test', 'train'\]",
    "data.images.test_split=val": "'val' .*test_split='val'; with 'none'",
    "data.images.dataset=no_set": (
        "'tfds:NAME' or a folder .*'no_set', which is not"
    ),
    "data.images.dataset=tfds:no_set": "name of a TFDS data set. Got: 'no_set'",
    "objective.supervised.weight=-1.0": "weight of level 'supervised'.*-1",
    "objective.supervised.num_classes=4": "num_classes must be 3, as .* Got: 4",
}


@pytest.mark.parametrize("setting, message", BAD.items(), ids=[*BAD])
def test_bad_settings_are_told_and_leave_no_folder(
    data, tmp_path, setting, message
):
    config = small(data, "vivi_ex4_co100_demo", steps=2)
    config.data.images.label_fraction = 0.5
    key, _, value = setting.partition("=")
    path, _, last = key.rpartition(".")
    owner = config
    for part in path.split("."):
        owner = owner[part]
    before = owner[last]
    owner[last] = (
        ("cat", "cow") if last == "class_names" else type(before)(value)
    )
    with pytest.raises(ValueError, match=f"(?s){message}"):
        run.pretrain(config, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def test_a_run_without_labels_cannot_be_tested_at_its_export(tmp_path):
    config = configs.get_config("vivi_ex4_demo")
    workdir_lib.claim_workdir(tmp_path, config, "none")
    with pytest.raises(ValueError, match="--test must be of a row with labels"):
        export.test_batches(tmp_path)


def test_the_labels_drawn_are_recorded_and_those_of_the_seed(data):
    subsets = {}
    for seed in (0, 0, 1):
        config = small(data, "sup_10_demo")
        config.seed = seed
        batches.name_labels(config)
        subsets.setdefault(seed, set()).add(config.data.images.label_subset)
        assert config.data.images.label_subset.startswith("3 images, sha256")
    assert len(subsets[0]) == 1 and subsets[0] != subsets[1]
    config = small(data, "sup_100_demo")
    batches.name_labels(config)
    assert config.data.images.label_subset == ""


def test_images_and_videos_come_in_the_ratio_of_their_batches(data):
    config = small(data, "vivi_ex4_co100_demo")
    config.data.update(batch_size=2)
    config.data.images.update(batch_size=7)
    (batch,) = batches.build_batches(config, num_steps=1)
    assert batch["frames"].shape[0] == 2 and batch["image"].shape[0] == 7
    assert set(batch) == {"frames", "shot_mask", "video_id", "image", "label"}
    assert tf.reduce_max(batch["label"]) <= 2


def ranges(path, videos, *more):
    """A labels file: the first two shots of some videos, by turns."""
    rows = [f"video_{v}.mp4,0,2,{'cat' if v % 2 else 'dog'}" for v in videos]
    head = "path,start_seconds,stop_seconds,label"
    path.write_text("\n".join([head, *rows, *more]) + "\n")
    return str(path)


def test_labels_of_ranges_train_and_test(data, tmp_path):
    config = small(data, "vivi_ex4_co100_demo", steps=2)
    config.data.images.update(
        dataset=ranges(tmp_path / "train.csv", range(4)),
        test_split=ranges(tmp_path / "test.csv", (4, 5)),
    )
    config.train.test_every_steps = 1
    run.pretrain(config, tmp_path / "run", verbose=0)
    with open(tmp_path / "run" / "metrics.csv", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert all(row["test_top1"] for row in rows) and rows
    # The exported module is tested on the same frames: 2 of each video.
    (batch,) = export.test_batches(tmp_path / "run")
    assert batch["label"].numpy().tolist() == [1, 1, 0, 0]
    # Other labels are other data: the run does not go on with them.
    ranges(tmp_path / "train.csv", range(4), "video_6.mp4,,,cat")
    batches._opened.cache_clear()
    with pytest.raises(ValueError, match="must be the one that the run in"):
        run.pretrain(config, tmp_path / "run", verbose=0)


def test_a_test_on_labels_of_ranges_needs_other_videos(data, tmp_path):
    config = small(data, "vivi_ex4_co100_demo", steps=2)
    images = config.data.images
    images.dataset = ranges(tmp_path / "train.csv", range(4))
    for split, message in (
        ("test", "test_split must be a labels file .*Got: 'test' .*'none'"),
        (ranges(tmp_path / "a.csv", (3, 4)), "videos must not .*Got: 1 in bo"),
    ):
        images.test_split = split
        with pytest.raises(ValueError, match=message):
            run.pretrain(config, tmp_path / "run", verbose=0)
    config = small(data, "sup_100_demo", steps=2)
    config.data.images.update(dataset=images.dataset, test_split="none")
    config.data.dataset = ""
    with pytest.raises(ValueError, match="dataset must be given with a file"):
        run.pretrain(config, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def test_near_duplicates_reach_the_losses(data, tmp_path):
    """Two videos whose shots are all duplicates have no negatives left."""
    index = tmp_path / "index"
    index.mkdir()
    folder = data / "dataset"
    source = {"source": {"fingerprint": records.fingerprint(folder)}}
    (index / "index.json").write_text(json.dumps(source))
    config = small(data, "vivi_ex4_demo", steps=1)
    config.data.update(batch_size=8, duplicates=str(index))
    with pytest.raises(ValueError, match="without duplicates.csv"):
        run.pretrain(config, tmp_path / "run", verbose=0)

    def losses(pairs, name):
        head = "video_id_1,shot_1,video_id_2,shot_2\n"
        rows = [f"{1000 + a},{s},{1000 + b},{t}\n" for a, s, b, t in pairs]
        (index / "duplicates.csv").write_text(head + "".join(rows))
        run.pretrain(config, tmp_path / name, verbose=0)
        with open(tmp_path / name / "metrics.csv", encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        return row

    none = losses([], "none")
    # Shots of one place of all videos are the same footage, over chains.
    every = losses(
        [(v, s, v + 1, t) for v in range(7) for s in range(5) for t in (0, s)],
        "every",
    )
    config.data.duplicates = ""
    run.pretrain(config, tmp_path / "off", verbose=0)
    with open(tmp_path / "off" / "metrics.csv", encoding="utf-8") as file:
        (off,) = csv.DictReader(file)
    for key in ("loss", "video_info_nce_loss"):
        assert none[key] == off[key]
    assert float(every["video_info_nce_loss"]) == 0.0
    assert float(off["video_info_nce_loss"]) > 0.1
    config.data.duplicates = str(index)
    (index / "duplicates.csv").write_text("video_id_1,shot_1,video_id_2,shot_2")
    with pytest.raises(ValueError, match="must be the one that the run in"):
        run.pretrain(config, tmp_path / "every", verbose=0)
