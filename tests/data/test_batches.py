"""Video batches: pure functions of (data set, seed, step)."""

import collections
import itertools
import os
import subprocess
import sys

import data_helpers
import numpy as np
import pytest

from vivi_keras import data
from vivi_keras.data import records as records_lib

NUM_RECORDS = 7


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    sizes = ([3, 1], [4, 2, 5], [1], [2, 2, 2, 6, 1])
    return data_helpers.write_dataset(
        tmp_path_factory.mktemp("videos"),
        [
            data_helpers.video_example(video, sizes[video % 4])
            for video in range(NUM_RECORDS)
        ],
    )


def take(dataset, num_steps=1, **arguments):
    defaults = dict(
        batch_size=4, num_shots=3, frames_per_shot=2, image_size=(24, 32)
    )
    batches = data.video_batches(
        dataset, **{**defaults, **arguments}, num_steps=num_steps
    )
    return list(batches.as_numpy_iterator())


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def test_shapes_are_static_and_hold(dataset):
    batches = data.video_batches(
        dataset, 4, 3, 2, (24, 32), copies=5, num_steps=1
    )
    spec = batches.element_spec
    assert spec["frames"].shape == (4, 3, 2, 5, 24, 32, 3)
    assert spec["shot_mask"].shape == (4, 3)
    assert spec["video_id"].shape == (4,)
    batch = next(batches.as_numpy_iterator())
    assert batch["frames"].dtype == np.uint8
    assert batch["shot_mask"].dtype == bool
    assert batch["video_id"].dtype == np.int64
    for name, value in batch.items():
        assert value.shape == spec[name].shape


def test_padding_comes_last_and_is_black(dataset):
    for batch in take(dataset, 4, crop=None):
        mask = batch["shot_mask"]
        assert mask[:, 0].all()
        assert (np.diff(mask.astype(int), axis=1) <= 0).all()
        assert (batch["frames"][~mask] == 0).all()
        assert (batch["frames"][mask].max(axis=(1, 2, 3, 4)) > 40).all()
        num_shots = np.array([2, 3, 1, 3])[(batch["video_id"] - 1000) % 4]
        np.testing.assert_array_equal(mask.sum(axis=1), num_shots)


def test_frames_belong_to_their_shots(dataset):
    # The green channel tells the frame, the red one the video.
    shots = {1003: np.repeat(np.arange(5), [2, 2, 2, 6, 1])}
    seen = set()
    for batch in take(dataset, 20, crop=None):
        colours = batch["frames"].astype(float).mean(axis=(3, 4))
        videos = np.round((colours[..., 0] - 20) / 7)
        ids = (batch["video_id"] - 1000)[:, None, None]
        matches = (videos == ids).all(axis=2)
        assert matches[batch["shot_mask"]].all()
        for row in np.flatnonzero(batch["video_id"] == 1003):
            frames = np.round((colours[row, ..., 1] - 20) / 7).astype(int)
            found = shots[1003][frames]  # [S, F]
            assert (found == found[:, :1]).all()
            assert (np.diff(found[:, 0]) == 1).all()
            assert (np.diff(frames, axis=1)[found[:, 0] < 4] > 0).all()
            seen.update(map(tuple, frames.tolist()))
    assert len({found for found in seen if 5 < found[0] < 12}) > 4
    assert (12, 12) in seen


def test_from_step_five_equals_five_steps_in(dataset):
    whole = take(dataset, 8, seed=3, copies=2)
    assert_same(take(dataset, 3, seed=3, copies=2, first_step=5), whole[5:])


def test_seed_and_step_change_the_batch(dataset):
    first, second = take(dataset, 2, seed=3)
    (other,) = take(dataset, 1, seed=4)
    assert not np.array_equal(first["frames"], second["frames"])
    assert not np.array_equal(first["frames"], other["frames"])


def test_every_epoch_takes_each_record_once_in_another_order(dataset):
    # 4 does not divide 7: epochs end inside batches.
    ids = [batch["video_id"] for batch in take(dataset, NUM_RECORDS)]
    epochs = np.concatenate(ids).reshape(-1, NUM_RECORDS)
    for epoch in epochs:
        assert sorted(epoch) == list(range(1000, 1000 + NUM_RECORDS))
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_shards_join_to_the_global_batch(dataset):
    whole = take(dataset, 3)
    shards = [take(dataset, 3, shard=(index, 2)) for index in range(2)]
    joined = [
        {name: np.concatenate([a[name], b[name]]) for name in a}
        for a, b in zip(*shards, strict=True)
    ]
    assert_same(joined, whole)


def test_copies_are_crops_of_the_same_frame(dataset):
    (batch,) = take(dataset, copies=4)
    frames = batch["frames"][batch["shot_mask"]].astype(float)
    colours = frames[..., :2].mean(axis=(3, 4))  # [shots, F, C, 2]
    assert np.ptp(colours, axis=2).max() < 2
    assert (np.ptp(frames, axis=2).max(axis=(1, 2, 3, 4)) > 20).all()


def test_videos_are_counted_evenly(dataset):
    ids = itertools.chain.from_iterable(
        batch["video_id"].tolist() for batch in take(dataset, 7)
    )
    assert set(collections.Counter(ids).values()) == {4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 8}, "at most the 7 records.*Got: 8"),
        ({"batch_size": 0}, "batch_size.*at least 1. Got: 0"),
        ({"batch_size": True}, "batch_size.*int"),
        ({"num_shots": 0}, "num_shots.*at least 1"),
        ({"frames_per_shot": 1.5}, "frames_per_shot.*int.*1.5"),
        ({"image_size": 4}, "image_size.*at least 8. Got: 4"),
        ({"image_size": "64"}, "image_size.*'64'"),
        ({"copies": 0}, "copies.*at least 1"),
        (
            {"crop": "random"},
            "crop must be one of inception, None. Got: 'random'",
        ),
        ({"split": "test"}, "splits.*train.*Got: 'test'"),
        ({"shard": (2, 2)}, "shard must be .* index < count"),
        ({"shard": (0, 3)}, "multiple of the number of shards"),
        ({"first_step": -1}, "first_step.*at least 0"),
        ({"num_steps": 0}, "num_steps.*at least 1"),
        ({"seed": 0.5}, "seed.*int"),
    ],
)
def test_bad_arguments_are_named(dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        data.video_batches(dataset, **{"batch_size": 4, **arguments})


def test_folder_without_a_data_set(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        data.video_batches(tmp_path / "none", 2)
    with pytest.raises(ValueError, match="no dataset_info.json"):
        data.video_batches(tmp_path, 2)
    with pytest.raises(ValueError, match="no dataset_info.json"):
        data.fingerprint(tmp_path)


def test_one_video_is_too_few(tmp_path):
    example = data_helpers.video_example(0, [2, 2])
    dataset = data_helpers.write_dataset(tmp_path, [example] * 3)
    with pytest.raises(ValueError, match="at least 2 videos"):
        data.video_batches(dataset, 2)


def test_other_file_formats_are_named(tmp_path):
    examples = [data_helpers.video_example(v, [2, 2]) for v in range(2)]
    dataset = data_helpers.write_dataset(tmp_path, examples, "tfrecord")
    with pytest.raises(ValueError, match="array_record.*Got: 'tfrecord'"):
        data.video_batches(dataset, 2)


def test_fingerprint_tells_contents_apart(tmp_path, dataset):
    copies = []
    for name, videos in (("a", (0, 1)), ("b", (0, 1)), ("c", (0, 2))):
        examples = [data_helpers.video_example(v, [2]) for v in videos]
        directory = data_helpers.write_dataset(tmp_path / name, examples)
        copies.append(data.fingerprint(directory))
    assert copies[0] == copies[1] != copies[2]
    assert data.fingerprint(dataset) not in copies


MANY_FILES = """
import concurrent.futures, os, resource, sys
import numpy as np
from vivi_keras.data import records

hard = int(sys.argv[2]) if sys.argv[2] != "same" else None
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard or 4096))
opened = records.Records(sys.argv[1])
assert len(opened) == 90, len(opened)

def video(index):
    return int(records.Example(opened.read(index)).integers("video_id")[0])

order = np.random.default_rng(0).permutation(np.repeat(range(90), 5))
with concurrent.futures.ThreadPoolExecutor(8) as threads:
    found = list(threads.map(video, order))
assert found == [1000 + index for index in order]
print(len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc"
)
@pytest.mark.parametrize(
    ("hard", "least", "most"), [("64", 16, 50), ("same", 90, 200)]
)
def test_a_data_set_may_have_more_files_than_can_be_open(
    hard, least, most, tmp_path
):
    folder = tmp_path / "data"
    examples = [
        data_helpers.video_example(v, [1], height=32, width=32)
        for v in range(90)
    ]
    data_helpers.write_dataset(folder, examples, records_per_file=1)
    assert len([*folder.glob("*array_record*")]) == 90
    done = subprocess.run(
        [sys.executable, "-c", MANY_FILES, str(folder), hard],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert least <= int(done.stdout) <= most


@pytest.mark.parametrize("index", [-1, 3, 2**40])
def test_a_number_that_no_record_has_is_an_error(index, tmp_path):
    examples = [data_helpers.video_example(v, [2]) for v in range(3)]
    opened = records_lib.Records(
        data_helpers.write_dataset(tmp_path / "data", examples)
    )
    with pytest.raises(ValueError, match=f"from 0 to 2. Got: {index}"):
        opened.read(index)


def test_a_part_of_a_split_reads_its_records(tmp_path):
    examples = [data_helpers.video_example(v, [2]) for v in range(10)]
    folder = data_helpers.write_dataset(tmp_path / "data", examples)
    opened = records_lib.Records(folder, "train[2:9]")
    found = [
        int(records_lib.Example(opened.read(i)).integers("video_id")[0])
        for i in range(len(opened))
    ]
    assert found == [1000 + v for v in range(2, 9)]
