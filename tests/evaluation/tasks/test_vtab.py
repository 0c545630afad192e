"""VTAB-1k: wiring of every task, labels, slices and the score."""

import shutil
import subprocess
import sys

import evaluation_modules
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from vivi_keras import files
from vivi_keras.evaluation import evaluate
from vivi_keras.evaluation.reports import scores
from vivi_keras.evaluation.tasks import packages, vtab_tasks, vtab_tfds

# The data sets' own splits, from their TFDS catalogue pages.
SIZES = {
    "caltech101": {"train": 3060, "test": 6084},
    "cifar100": {"train": 50000, "test": 10000},
    "oxford_iiit_pet": {"train": 3680, "test": 3669},
    "svhn": {"train": 73257, "test": 26032},
    "eurosat": {"train": 27000},
    "resisc45": {"train": 31500},
    "clevr_count": {"train": 70000, "validation": 15000, "test": 15000},
    "clevr_distance": {"train": 70000, "validation": 15000, "test": 15000},
    "dsprites_position": {"train": 737280},
    "dsprites_orientation": {"train": 737280},
    "smallnorb_azimuth": {"train": 24300, "test": 24300},
    "smallnorb_elevation": {"train": 24300, "test": 24300},
}
# Where val200 starts in the public code's slices.
VAL200 = {
    "caltech101": "train[2754:2954]",
    "cifar100": "train[45000:45200]",
    "oxford_iiit_pet": "train[2944:3144]",
    "svhn": "train[65931:66131]",
    "eurosat": "train[16200:16400]",
    "resisc45": "train[18900:19100]",
    "clevr_count": "train[63000:63200]",
    "clevr_distance": "train[63000:63200]",
    "dsprites_position": "train[589824:590024]",
    "dsprites_orientation": "train[589824:590024]",
    "smallnorb_azimuth": "test[:200]",
    "smallnorb_elevation": "test[:200]",
}


def sizes_of(source):
    """A data set's own splits; natively divided ones are as published."""
    parts = ("train", "validation", "test")
    return SIZES.get(
        source.name, dict(zip(parts, source.published, strict=True))
    )


def test_registry_is_vtab():
    assert len(vtab_tasks.SOURCES) == 19
    counts = [
        sum(s.group == group for s in vtab_tasks.SOURCES.values())
        for group in vtab_tasks.GROUPS
    ]
    assert counts == [7, 4, 8]


@pytest.mark.parametrize("name", vtab_tasks.SOURCES)
def test_split_sizes_are_the_published_ones(name):
    source = vtab_tasks.SOURCES[name]
    sizes = sizes_of(source)
    splits = source.splits(sizes)
    found = tuple(
        vtab_tfds.num_examples(getattr(splits, part), sizes)
        for part in ("train", "validation", "test")
    )
    assert found == source.published
    assert splits.val200 == VAL200.get(name, "validation[:200]")
    assert vtab_tfds.num_examples(splits.val200, sizes) == 200
    # What chooses settings must be neither trained nor tested on.
    ranges = {
        part: interval(getattr(splits, part), sizes)
        for part in ("train800", "val200", "test", "validation")
    }
    assert not ranges["train800"] & ranges["val200"]
    assert not ranges["val200"] & ranges["test"]
    assert ranges["val200"] <= ranges["validation"]


def interval(split, sizes):
    name, _, rest = split.partition("[")
    start, _, stop = rest.rstrip("]").partition(":")
    rows = range(sizes[name])[
        int(start) if start else None : int(stop) if stop else None
    ]
    return {(name, row) for row in rows}


def scenes(builder, objects):
    """Scenes as a builder's own features, whose objects TFDS's mock makes of
    unequal lengths.
    """
    spec = builder.info.features["objects"].get_tensor_spec()
    for count in range(6):
        made = objects(count)
        found = {
            key: made.get(key, np.zeros([made["count"], *s.shape[1:]]))
            for key, s in spec.items()
        }
        found = {
            key: np.asarray(v, spec[key].dtype.as_numpy_dtype)
            for key, v in found.items()
        }
        image = np.full((30, 40, 3), 40 * count, np.uint8)
        yield {"image": image, "objects": found}


def made_data(objects):
    def as_dataset(builder, *unused, **ignored):
        spec = {
            "image": tf.TensorSpec((None, None, 3), tf.uint8),
            "objects": builder.info.features["objects"].get_tensor_spec(),
        }
        return tf.data.Dataset.from_generator(
            lambda: scenes(builder, objects), output_signature=spec
        )

    return as_dataset


def clevr_objects(number):
    """Number + 3 objects, the closest 7 + 0.9 * number away."""
    pixels = np.full((number + 3, 3), 20.0)
    pixels[-1, 2] = 7.0 + 0.9 * number
    return {"count": number + 3, "pixel_coords": pixels}


def kitti_objects(number):
    """As many cars, 5 m ahead, and one pedestrian, 1 m ahead."""
    places = np.full((number + 1, 3), 5.0)
    places[-1, 2] = 1.0
    return {
        "count": number + 1,
        "type": [0] * number + [3],
        "location": places,
    }


clevr_scenes = made_data(clevr_objects)
kitti_scenes = made_data(kitti_objects)


@pytest.mark.parametrize("name", vtab_tasks.SOURCES)
def test_wiring_with_mocked_data(name, tmp_path, monkeypatch):
    """Every task reads images and labels of its real TFDS features."""
    source = vtab_tasks.SOURCES[name]
    monkeypatch.setattr(vtab_tfds, "split_sizes", lambda b: sizes_of(source))
    made = {"clevr": clevr_scenes, "kitti": kitti_scenes}.get(
        name.partition("_")[0]
    )
    with tfds.testing.mock_data(
        num_examples=6, data_dir=str(tmp_path), as_dataset_fn=made
    ):
        task = vtab_tfds.load_task(name, tmp_path)
        label = task._builder.info.features
        key = {
            "dsprites_position": "label_x_position",
            "dsprites_orientation": "label_orientation",
            "smallnorb_azimuth": "label_azimuth",
            "smallnorb_elevation": "label_elevation",
        }.get(name, "label")
        if key in label:
            stored = label[key].num_classes
            expected = 16 if name.startswith("dsprites") else stored
            assert task.num_classes == expected
        batches = list(task.batches("test", (20, 28), 4))
    images = np.concatenate([b[0] for b in batches])
    labels = np.concatenate([b[1] for b in batches])
    assert images.shape == (6, 20, 28, 3) and images.dtype == np.float32
    assert images.min() >= 0.0 and images.max() <= 1.0
    assert labels.shape == (6,) and labels.dtype == np.int64
    if made is not None:  # one scene more of objects each
        expected = {
            "clevr_count": [0, 1, 2, 3, 4, 5],
            "clevr_distance": [0, 0, 2, 4, 5, 5],
            "kitti_distance": [3, 0, 0, 0, 0, 0],
        }[name]
        np.testing.assert_array_equal(labels, expected)
    assert task.num_examples("train") == 1000
    assert task.num_examples("test") == source.published[2]
    train, held = task.split(seed=5)
    assert list(train) == list(range(800)) and held[-1] == 999


def objects(**values):
    return {"objects": {k: tf.constant(v) for k, v in values.items()}}


def test_clevr_labels():
    assert vtab_tasks.clevr_count(objects(size=[0, 1, 0])) == 0
    assert vtab_tasks.clevr_count(objects(size=[0] * 10)) == 7
    for depths, expected in [
        ([9.2, 7.0, 12.0], 0),
        ([8.0, 9.0], 0),  # an exact edge falls in the lower bin
        ([8.1], 1),
        ([8.5], 1),
        ([8.75], 2),
        ([9.25], 3),
        ([10.0], 4),
        ([10.5, 11.0], 5),
    ]:
        pixels = [[3.0, 4.0, depth] for depth in depths]
        assert (
            vtab_tasks.clevr_distance(objects(pixel_coords=pixels)) == expected
        )


def test_kitti_labels():
    def label(kinds, ahead):
        places = [[1.0, 2.0, z] for z in ahead]
        return int(
            vtab_tasks.kitti_distance(objects(type=kinds, location=places))
        )

    assert label([0, 3], [7.0, 1.0]) == 0
    assert label([0], [8.0]) == 0
    assert label([2, 1], [30.0, 19.0]) == 1
    assert label([1], [20.5]) == 2
    assert label([3, 7], [5.0, 5.0]) == 3  # no vehicle among them


def test_sprites_and_grey_images():
    position = vtab_tasks.sprite_label("label_x_position", 32)
    turn = vtab_tasks.sprite_label("label_orientation", 40)
    found = [
        int(position({"label_x_position": tf.constant(i)}))
        for i in (0, 1, 2, 31)
    ]
    assert found == [0, 0, 1, 15]
    found = [
        int(turn({"label_orientation": tf.constant(i)})) for i in (2, 3, 5, 39)
    ]
    assert found == [0, 1, 2, 15]
    image = tf.constant([[[0], [1]]], tf.uint8)
    sprite = vtab_tasks.sprite_image({"image": image})
    np.testing.assert_array_equal(sprite[0], [[0] * 3, [255] * 3])
    scaled = tf.constant([[[0], [255]]], tf.uint8)
    sprite = vtab_tasks.sprite_image({"image": scaled})
    np.testing.assert_array_equal(sprite[0], [[0] * 3, [255] * 3])
    grey = vtab_tasks.grey_image({"image": image})
    np.testing.assert_array_equal(grey[0], [[0] * 3, [1] * 3])


def test_missing_data_says_how(tmp_path):
    with pytest.raises(packages.Unavailable, match="--prepare"):
        vtab_tfds.load_task("dtd", tmp_path)
    with pytest.raises(packages.Unavailable, match="TFDS cannot give"):
        vtab_tfds.find_builder("dtd:99.*.*", tmp_path)


def test_what_to_download_by_hand_is_told_whole(tmp_path):
    names = ["resisc45", "diabetic_retinopathy"]
    missing = vtab_tfds.prepare(names, tmp_path, lambda line: None)
    manual = tmp_path / "downloads" / "manual"
    for name, last_words, file in (
        ("resisc45", "to the manual_dir.", "NWPU-RESISC45/airplane/"),
        ("diabetic_retinopathy", "trainLabels.csv.", "train/10_left.jpeg"),
    ):
        assert last_words in missing[name]  # of TFDS's own guidance
        assert f"{manual}/{file}" in missing[name]
    assert f"{manual}/trainLabels.csv" in missing["diabetic_retinopathy"]


def test_caltech_is_split_alike_on_every_file_system(tmp_path, monkeypatch):
    for kind in ("ant", "bee"):
        folder = tmp_path / "images" / "all" / kind
        folder.mkdir(parents=True)
        for number in range(40):
            (folder / f"image_{number:04}.jpg").touch()
    builder = tfds.builder("caltech101", data_dir=tmp_path)

    def chosen():
        files = builder._generate_examples(tmp_path / "images", True)
        with vtab_tfds.sorted_listings():
            return {key for key, _ in files}

    listdir, walk = tf.io.gfile.listdir, tf.io.gfile.walk
    found = []
    for turned in (False, True):  # two file systems
        monkeypatch.setattr(
            tf.io.gfile,
            "listdir",
            lambda path, turned=turned: sorted(listdir(path), reverse=turned),
        )
        monkeypatch.setattr(
            tf.io.gfile,
            "walk",
            lambda path, turned=turned: [
                (at, within, sorted(names, reverse=turned))
                for at, within, names in walk(path)
            ],
        )
        found.append(chosen())
    assert len(found[0]) == 60 and found[0] == found[1]


def test_resizes_by_hand():
    ramp = tf.constant([[[0.0], [1.0], [2.0], [3.0]]])
    legacy = vtab_tfds.resized(ramp, (1, 2), "legacy")
    np.testing.assert_allclose(legacy[0, :, 0], [0.0, 2.0])
    half_pixel = vtab_tfds.resized(ramp, (1, 2), "half_pixel")
    np.testing.assert_allclose(half_pixel[0, :, 0], [0.5, 2.5])


def store(name, folder):
    """A small data set on disk, under a name and version of TFDS's own."""
    builder = tfds.builder(vtab_tasks.SOURCES[name].builder, data_dir=folder)
    generator = np.random.default_rng(0)

    def split(count):
        labels = np.arange(count) % 5
        images = generator.integers(0, 60, (count, 9, 12, 3), np.uint8)
        images[..., 0] += 40 * labels.astype(np.uint8)[:, None, None]
        rows = {"image": images, "label": labels}
        rows["file_name"] = np.array([f"{i}.jpg" for i in range(count)])
        return tf.data.Dataset.from_tensor_slices(rows)

    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=builder.version,
        features=builder.info.features,
        split_datasets={
            "train": split(800),
            "validation": split(200),
            "test": split(30),
        },
        data_dir=folder,
    )
    return folder / name / str(builder.version)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vtab")
    store("oxford_flowers102", folder)
    return store("dtd", folder)


def cut(file):
    file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("pattern", "damage", "said"),
    [
        ("dtd-test*", cut, "split test of dtd/3.0.1 cannot be read: DataLoss"),
        ("dtd-valid*", lambda f: f.unlink(), "validation[:200] of dtd/3.0.1"),
        ("dataset_info.json", cut, "data set dtd:3.*.* cannot be read"),
    ],
)
def test_what_cannot_be_read_is_skipped(
    stored, tmp_path, pattern, damage, said
):
    shutil.copytree(stored.parents[1], tmp_path / "data")
    (file,) = (tmp_path / "data" / "dtd" / stored.name).glob(pattern)
    damage(file)
    module = evaluation_modules.save(tmp_path / "tiny")
    lines = []
    results = evaluate.evaluate(
        module,
        tmp_path / "out",
        suite="vtab",
        tasks=["dtd", "oxford_flowers102"],
        protocols=["knn"],
        image_size=16,
        data_dir=tmp_path / "data",
        cache_dir=None,
        show=lines.append,
    )
    assert list(results["skipped"]) == ["dtd"]
    assert said in results["skipped"]["dtd"]
    assert any(f"skipped dtd: {results['skipped']['dtd']}" == n for n in lines)
    assert {row["task"] for row in results["rows"]} == {"oxford_flowers102"}
    assert list(results["tasks"]) == ["oxford_flowers102"]
    assert "withheld: tasks are missing" in results["table"]
    assert "VTAB-1k mean" not in results["table"]


def test_a_skipped_task_is_no_success(stored, tmp_path):
    module = evaluation_modules.save(tmp_path / "tiny")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vivi_keras.training.evaluate"),
            *(f"--module={module}", "--suite=vtab", "--tasks=dtd,svhn"),
            *("--protocols=knn", "--image_size=16", "--resize=legacy"),
            *(f"--data_dir={stored.parents[1]}", f"--cache_dir={tmp_path}"),
            f"--output={tmp_path / 'out'}",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.endswith(
        "vivi-evaluate: not scored: svhn; see the reason above\n"
    )
    assert "images are resized as legacy" in done.stdout
    results = files.read_json(tmp_path / "out" / "results.json")
    assert {row["task"] for row in results["rows"]} == {"dtd"}
    assert results["settings"]["resize"] == "legacy"


# (mean, natural, specialized, structured) as published.
@pytest.mark.parametrize(
    "row",
    [
        (43.1, 27.9, 68.9, 43.6),
        (60.4, 53.7, 78.6, 57.3),
        (58.0, 48.9, 78.4, 55.8),
        (62.5, 55.9, 80.9, 59.1),
        (63.3, 57.5, 81.0, 59.5),
        (65.3, 70.2, 81.9, 52.7),
        (65.1, 69.6, 82.4, 52.5),
        (66.4, 73.5, 82.5, 52.1),
        (67.7, 73.7, 83.1, 54.7),
        (68.0, 73.6, 83.1, 55.5),
        (69.4, 69.9, 83.3, 62.1),
    ],
)
def test_score_reproduces_published_means(row):
    means = dict(zip(vtab_tasks.GROUPS, row[1:], strict=True))
    generator = np.random.default_rng(0)
    accuracies = {}
    for group in vtab_tasks.GROUPS:
        found = vtab_tasks.SOURCES.values()
        names = [source.name for source in found if source.group == group]
        spread = generator.normal(0, 5, len(names))
        for name, off in zip(names, spread - spread.mean(), strict=True):
            accuracies[name] = means[group] + off
    found = scores.vtab_score(accuracies)
    # Group means were rounded to 0.1 each, so was the mean.
    assert found["mean"] == pytest.approx(row[0], abs=0.1)
    for group in vtab_tasks.GROUPS:
        assert found[group] == pytest.approx(means[group])
    weighed = (7 * row[1] + 4 * row[2] + 8 * row[3]) / 19
    assert found["mean"] == pytest.approx(weighed)


# The 19 accuracies of two rows, in the order of SOURCES, and the means (all,
# then by group) published with them: a ViT-B/16 fine-tuned, and by linear
# probe (Jia et al. 2022, arXiv 2203.12119).
PER_TASK = {
    "87.7 68.9 64.3 97.2 86.9 38.8 87.4  79.7 95.7 84.2 73.9"
    " 56.3 58.6 41.7 57.5 46.7 25.7 29.1 65.5": (65.57, 75.88, 83.36, 47.64),
    "85.0 63.4 63.2 97.0 86.3 51.0 36.6  78.5 87.5 68.6 74.0"
    " 34.3 30.6 33.2 12.5 20.0 9.6 19.2 55.4": (52.94, 68.93, 77.16, 26.84),
}


@pytest.mark.parametrize("row", PER_TASK)
def test_score_reproduces_published_means_from_their_tasks(row):
    accuracies = map(float, row.split())
    tasks = vtab_tasks.SOURCES
    found = scores.vtab_score(dict(zip(tasks, accuracies, strict=True)))
    means = (found["mean"], *(found[g] for g in vtab_tasks.GROUPS))
    # The tasks' accuracies were rounded to 0.1 each.
    assert means == pytest.approx(PER_TASK[row], abs=0.02)


def test_score_is_withheld_unless_all_are_there():
    accuracies = dict.fromkeys(vtab_tasks.SOURCES, 50.0)
    del accuracies["kitti_distance"]
    found = scores.vtab_score(accuracies)
    assert found["mean"] is None and found["structured"] is None
    assert found["natural"] == 50.0
    with pytest.raises(ValueError, match="digits"):
        scores.vtab_score({"digits": 1.0})
