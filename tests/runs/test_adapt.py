"""A run that keeps its best step, and the verdict on it."""

import csv
import dataclasses
import json
import os
import signal

import data_helpers
import keras
import numpy as np
import pytest

from vivi_keras import export_encoder
from vivi_keras.evaluation import verdict
from vivi_keras.features import encoder as encoder_lib
from vivi_keras.features import frames, own_labels
from vivi_keras.runs import best, build, checkpoints, run
from vivi_keras.trainer import probe as probe_lib
from vivi_keras.training import configs, pipeline

NUM_VIDEOS = 24


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A data set of videos of two classes, told by the amount of red."""
    folder = tmp_path_factory.mktemp("archive")
    edges = np.arange(0, 15, 3, dtype=np.float32)
    data_helpers.write_dataset(
        folder / "data",
        [
            data_helpers.video_example(16 * (v % 2) + v // 2, [3] * 4)
            | {
                "shot_start_seconds": edges[:-1],
                "shot_stop_seconds": edges[1:],
            }
            for v in range(NUM_VIDEOS)
        ],
    )
    rows = [
        f"video_{16 * (v % 2) + v // 2}.mp4,{'dark' if v % 2 else 'light'}"
        for v in range(NUM_VIDEOS)
    ]
    (folder / "labels.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    return folder


def small_config(archive, name="vivi_ex4_demo", steps=6):
    config = configs.get_config(name)
    config.data.dataset = str(archive / "data")
    config.data.update(batch_size=4, image_size=24)
    config.model.width = 0.125
    config.train.update(steps=steps, checkpoint_every_steps=2)
    return config


def keep_best(config, archive, workdir, **options):
    return run.pretrain(
        config,
        workdir,
        verbose=0,
        probe=str(archive / "labels.csv"),
        probe_every_steps=2,
        keep_best=True,
        **options,
    )


def test_frames_are_read_by_number(archive):
    stored = frames.StoredFrames(archive / "data")
    assert stored.footage.num_frames.tolist() == [3] * 4 * NUM_VIDEOS
    assert stored.footage.seconds[:12].tolist() == [*range(12)]
    for row, image in zip([14, 3, 14], stored.read([14, 3, 14]), strict=True):
        video, frame = divmod(row, 12)
        video = 16 * (video % 2) + video // 2
        expected = data_helpers.frame_pixels(video, frame)
        assert np.abs(image.astype(int) - expected).mean() < 3


def test_no_video_is_in_two_parts(archive):
    own = own_labels.read(archive / "labels.csv", archive / "data")
    assert len(own.images) == 12 * NUM_VIDEOS
    assert own.class_names == ("dark", "light")
    first, second = own_labels.probe_and_verdict(own)
    assert sorted([*first, *second]) == [*range(len(own.images))]
    assert not {*own.groups[first]} & {*own.groups[second]}
    for rows in (first, second):
        assert {*own.labels[rows]} == {0, 1}
    # Fewer: one frame of each shot before a second one.
    few = own_labels.read(
        archive / "labels.csv", archive / "data", most=4 * NUM_VIDEOS
    )
    assert np.bincount(few.shots).tolist() == [1] * 4 * NUM_VIDEOS
    # At most so many of a shot, each once.
    two = own_labels.read(
        archive / "labels.csv", archive / "data", most_per_shot=2
    )
    assert np.bincount(two.shots).tolist() == [2] * 4 * NUM_VIDEOS
    assert len({image.tobytes() for image in two.images}) == 8 * NUM_VIDEOS


def test_halves_differ_by_seed_and_have_similar_classes():
    # Videos of unequal length with their own mix of classes, as real ones.
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), rng.integers(20, 60, 10))
    labels = np.concatenate(
        [
            rng.choice(5, size, p=rng.dirichlet(np.ones(5)))
            for size in np.bincount(groups)
        ]
    )
    divisions = set()
    for seed in range(20):
        first, second = own_labels.halves(labels, groups, seed)
        assert sorted([*first, *second]) == [*range(len(labels))]
        assert not {*groups[first]} & {*groups[second]}
        share = np.bincount(labels[first], minlength=5) / np.bincount(labels)
        assert 0.25 < share.mean() < 0.75 and share.max() < 0.95
        divisions.add(first.tobytes())
    assert len(divisions) > 10
    # Single images are divided class by class.
    labels = np.arange(100) % 3
    first, _ = own_labels.halves(labels, np.arange(100), 1)
    assert np.abs(np.bincount(labels[first]) - [17, 16.5, 16.5]).max() <= 1
    # Classes of one video say nothing about the balance: the images do.
    groups = np.repeat(np.arange(12), rng.integers(1, 60, 12))
    labels = np.where(groups < 4, groups // 2, groups)
    for seed in range(20):
        first, _ = own_labels.halves(labels, groups, seed)
        assert 0.25 < len(first) / len(labels) < 0.75
    # Few divisions have both classes in each half; one of them is found.
    for seed in range(20):
        own_labels.halves(np.array([0, 1, 0, 1]), np.array([7, 8, 9, 9]), seed)


def test_four_parts_are_found_where_they_are():
    for seed in range(50):
        sizes = np.random.default_rng(seed).integers(1, 41, 8)
        groups = np.repeat(np.arange(8), sizes)
        own = own_labels.OwnLabels(
            images=[None] * len(groups),
            labels=(groups >= 4).astype(int),
            class_names=("a", "b"),
            groups=groups,
            shots=groups,
        )
        for rows in own_labels.probe_and_verdict(own):
            assert len({*groups[rows]}) == 4
    alone = dataclasses.replace(
        own, labels=groups, class_names=tuple("abcdefgh")
    )
    with pytest.raises(
        ValueError, match="Got: 8 videos and 8 classes: 'a' in 1, 'b' in 1"
    ):
        own_labels.probe_and_verdict(alone)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["video_0.mp4,x", "video_16.mp4,x"], "2 classes. Got: only 'x'"),
        (["video_0.mp4,x", "gone.mp4,y"], "row 3 .*'gone.mp4'"),
        (["video_0.mp4,x", "video_16.mp4,y"], "parts of them have 2 classes"),
    ],
)
def test_labels_that_cannot_choose_are_refused_first(
    archive, tmp_path, rows, message
):
    (tmp_path / "l.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    with pytest.raises(ValueError, match=message):
        run.pretrain(
            small_config(archive),
            tmp_path / "run",
            probe=str(tmp_path / "l.csv"),
            keep_best=True,
        )
    assert not (tmp_path / "run").exists()


def test_keep_best_needs_a_probe(archive, tmp_path):
    with pytest.raises(ValueError, match="probe must be given with keep_best"):
        run.pretrain(small_config(archive), tmp_path / "run", keep_best=True)


def dense(value, units=1):
    encoder = keras.layers.Dense(units, use_bias=False)
    encoder.build((None, 1))
    encoder.set_weights([np.full((1, units), value)])
    return encoder


def weight(encoder):
    return encoder.get_weights()[0].item()


def scored(*by_video):
    """What a probe finds: its scores, and what each video adds to them."""
    return {best.SCORE: sum(by_video)}, np.array(by_video)


@pytest.mark.parametrize(
    ("later", "step"),
    [
        # Gains of 0.02 and 0.06: mean 0.04 and standard error 0.02 a video,
        # so 0.08 and 0.04 for the two.
        ([(0.32, 0.36)], 10),
        # As far up, but by one video alone: 0.08, with as large an error.
        ([(0.30, 0.38)], 0),
        ([(0.29, 0.36)], 0),
        ([(0.30, 0.38), (0.31, 0.32), (0.29, 0.39)], 20),
    ],
)
def test_a_start_is_replaced_only_beyond_the_error(tmp_path, later, step):
    for number, by_video in enumerate([(0.3, 0.3), *later]):
        keep = best.KeepBest(tmp_path)
        keep(dense(number), 10 * number, lambda found=by_video: scored(*found))
    encoder = dense(9)
    record = best.restore(encoder, tmp_path)
    assert record["step"] == step and weight(encoder) == step / 10
    if step:
        assert record["score"] == pytest.approx(sum(later[step // 10 - 1]))
    assert ("by more than a standard" in best.summary(record)) == (not step)


def test_the_first_of_equal_steps_is_kept(tmp_path):
    for step, score in ((0, 0.5), (10, 0.5), (20, 0.75), (30, 0.75)):
        # A run that goes on has read the file.
        keep = best.KeepBest(tmp_path)
        found = keep(dense(step), step, lambda score=score: scored(score))
        assert found == {best.SCORE: score}
    encoder = dense(0)
    assert best.restore(encoder, tmp_path) == {
        "scores": {
            "0": {best.SCORE: 0.5},
            "10": {best.SCORE: 0.5},
            "20": {best.SCORE: 0.75},
            "30": {best.SCORE: 0.75},
        },
        "step": 20,
        "score": 0.75,
        "start_share": 0.0,
        "labels": None,
        "image_size": None,
    }
    assert weight(encoder) == 20
    with pytest.raises(ValueError, match="must be of the run's encoder"):
        best.restore(dense(0, units=2), tmp_path)
    (tmp_path / best.FILE).write_bytes(b"PK")
    with pytest.raises(ValueError, match="damaged"):
        best.restore(encoder, tmp_path)
    with pytest.raises(FileNotFoundError, match="--keep_best"):
        best.restore(encoder, tmp_path / "none")


@pytest.mark.parametrize(
    ("ideal", "step", "share", "value"),
    [
        (9.0, 20, 0.0, 9.0),
        (3.0, 20, 0.75, 3.0),
        (5.0, 20, 0.5, 5.0),
        # As far from 7 are the whole step and half of it: the half is kept.
        (7.0, 20, 0.5, 5.0),
        (0.5, 0, 0.0, 1.0),
    ],
)
def test_a_mix_with_the_start_can_be_best(tmp_path, ideal, step, share, value):
    shares, scores = (0.5, 0.75), {}
    for at, now in ((0, 1.0), (20, 9.0)):
        encoder = dense(now)
        scores[at] = best.KeepBest(tmp_path, shares)(
            encoder,
            at,
            lambda encoder=encoder: scored(
                1 - abs(weight(encoder) - ideal) / 10
            ),
        )
        assert weight(encoder) == now
    expected = {"": 9, "_mixed_0.5": 5, "_mixed_0.75": 3}
    for name, mixed in expected.items():
        found = scores[20][f"{best.SCORE}{name}"]
        assert found == pytest.approx(1 - abs(mixed - ideal) / 10)
        assert scores[0][f"{best.SCORE}{name}"] == scores[0][best.SCORE]
    encoder = dense(0.0)
    record = best.restore(encoder, tmp_path)
    assert (record["step"], record["start_share"]) == (step, share)
    assert weight(encoder) == value
    assert ("mixed" in best.summary(record)) == bool(share)


def spoil(folder, what):
    path = folder / best.START_FILE
    if what == "no best.npz":
        (folder / best.FILE).unlink()
    elif what == "cut best.npz":
        (folder / best.FILE).write_bytes(b"")
    elif what == "no start.npz":
        path.unlink()
    elif what == "cut start.npz":
        path.write_bytes(path.read_bytes()[:50])
    elif what == "a list":
        np.save(path.open("wb"), np.zeros(3))
    elif what == "fewer":
        np.savez(path, other=np.zeros(1))
    elif what == "broadcast":
        np.savez(path, **{"0000": np.zeros(1)})


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no best.npz", "keep_best from its first step on"),
        ("cut best.npz", "best.npz must be as vivi-pretrain wrote it"),
        ("no start.npz", "start.npz must be .* no such file"),
        ("cut start.npz", "start.npz must be .* damaged"),
        ("a list", "start.npz must be .* damaged"),
        ("fewer", "start.npz must be of the run's encoder"),
        ("broadcast", "start.npz must be of the run's encoder"),
        ("labels", "probe must have the labels"),
    ],
)
def test_a_run_does_not_go_on_with_other_files(tmp_path, what, message):
    def measure():
        return scored(0.5)

    best.KeepBest(tmp_path, (0.5,), "mine")(dense(1.0), 0, measure)
    labels = "other" if what == "labels" else "mine"
    spoil(tmp_path, what)
    keep = best.KeepBest(tmp_path, (0.5,), labels)
    with pytest.raises(ValueError, match=message):
        keep.open(dense(1.0), 10)


def test_a_spoilt_file_ends_a_run_before_its_next_step(archive, tmp_path):
    config = small_config(archive)
    config.adapt.start_shares = (0.5,)
    with pytest.raises(run.Preempted):
        keep_best(config, archive, tmp_path, callbacks=[StopAt(3)])
    saved = checkpoints.saved_steps(tmp_path)
    (tmp_path / best.START_FILE).unlink()
    with pytest.raises(ValueError, match="start.npz must be"):
        keep_best(config, archive, tmp_path)
    assert checkpoints.saved_steps(tmp_path) == saved


def test_variables_of_half_precision(tmp_path):
    encoders = []
    for step, value in ((0, 1.0), (10, 2.0)):
        encoder = keras.layers.Dense(1, use_bias=False, dtype="bfloat16")
        encoder.build((None, 1))
        encoder.set_weights([np.full((1, 1), value)])
        encoders.append(encoder)
        best.KeepBest(tmp_path, (0.5,))(
            encoder,
            step,
            lambda encoder=encoder: scored(
                1 - abs(float(encoder.kernel[0, 0]) - 1.5)
            ),
        )
    assert best.restore(encoders[0], tmp_path)["start_share"] == 0.5
    assert float(encoders[0].kernel[0, 0]) == 1.5


def test_an_encoder_is_itself_again_if_a_mix_fails(tmp_path):
    def measure():
        if weight(encoder) == 1.5:
            raise OSError("gone")
        return scored(0.5)

    keep = best.KeepBest(tmp_path, (0.5,))
    encoder = dense(1.0)
    keep(encoder, 0, measure)
    encoder = dense(2.0)
    with pytest.raises(OSError, match="gone"):
        keep(encoder, 10, measure)
    assert weight(encoder) == 2


class StopAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if self.model.steps_done == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stopped_run_keeps_the_same_best_step(archive, tmp_path):
    config = small_config(archive)
    run.pretrain(config, tmp_path / "plain", verbose=0)
    config.adapt.start_shares = (0.5,)
    keep_best(config, archive, tmp_path / "whole")
    with pytest.raises(run.Preempted):
        keep_best(config, archive, tmp_path / "two", callbacks=[StopAt(3)])
    with pytest.raises(ValueError, match="keep_best must be given"):
        run.pretrain(config, tmp_path / "two", verbose=0)
    keep_best(config, archive, tmp_path / "two")
    # No step is left, but other labels would judge what they have chosen.
    other = (archive / "labels.csv").read_text().replace("light", "bright", 1)
    (tmp_path / "labels.csv").write_text(other)
    with pytest.raises(ValueError, match="probe must have the labels"):
        run.pretrain(
            *(config, tmp_path / "whole"),
            probe=str(tmp_path / "labels.csv"),
            keep_best=True,
        )
    keep_best(config, archive, tmp_path / "whole")
    whole, two = best.read(tmp_path / "whole"), best.read(tmp_path / "two")
    assert whole[0] == two[0]
    assert [*whole[0]["scores"]] == ["0", "2", "4", "6"]
    for name, value in whole[1].items():
        np.testing.assert_array_equal(value, two[1][name])
    # The probe and its mixes leave no trace in training.
    plain, _ = build.restore_encoder(tmp_path / "plain")
    last, _ = build.restore_model(tmp_path / "two", step="last")
    for one, other in zip(
        plain.get_weights(), last.encoder.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with (tmp_path / "two/metrics.csv").open() as file:
        row = [*csv.DictReader(file)][-1]
    assert row["probe_linear_mixed_0.5"] and row["probe_linear"]


def train_red(archive, tmp_path):
    """A run that spoils its start; returns images and the start's features."""
    # Its feature is the amount of red, which tells the class.
    red = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    red.set_weights([np.array([[1.0], [0.0], [0.0]]), np.zeros(1)])
    export_encoder(red, tmp_path / "red")
    config = small_config(archive, "adapt_frame_demo")
    config.data.update(batch_size=4, image_size=32)
    config.model.encoder = f"module:{tmp_path / 'red'}"
    config.optimizer.update(name="adam", weight_decay=0.0)
    config.schedule.update(name="constant", learning_rate=30.0, warmup_steps=0)
    config.adapt.warmup_head_steps = 0
    keep_best(config, archive, tmp_path / "run")
    images = np.random.default_rng(0).uniform(0, 1, (5, 32, 32, 3))
    return images, images.mean(axis=(1, 2))[:, :1]


def test_a_spoilt_start_is_exported_as_it_was(archive, tmp_path, capsys):
    images, expected = train_red(archive, tmp_path)
    assert "nothing was adapted" in capsys.readouterr().out
    record, _ = best.read(tmp_path / "run")
    scores = [found[best.SCORE] for found in record["scores"].values()]
    assert scores[-1] < scores[0]
    last, _ = build.restore_model(tmp_path / "run", step="last")
    spoilt = np.asarray(last.encoder(images.astype("float32")))
    assert np.abs(spoilt - expected).max() > 0.1
    result = pipeline.judge_run(
        tmp_path / "run", archive / "labels.csv", draws=2, show=print
    )
    assert result["verdict"] == "The start was better: nothing was adapted."
    assert result["verdict"] in capsys.readouterr().out
    folder = tmp_path / "run/verdict"
    found = [
        encoder_lib.load_encoder(folder / name).features(images)
        for name in ("start", "adapted")
    ]
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], expected, atol=1e-6, rtol=0)
    assert json.loads((folder / "summary.json").read_text()) == result
    page = (folder / "report.html").read_text()
    assert "nothing was adapted" in page and "colour histogram" in page
    assert [*result["rows"]] == [
        *("start", "adapted", "raw 16x16 pixels", "colour histogram"),
        "start, fine-tuned",
    ]


def test_the_start_is_kept_if_the_verdict_says_so(archive, tmp_path, capsys):
    images, expected = train_red(archive, tmp_path)
    workdir, labels = tmp_path / "run", archive / "labels.csv"
    # As if the probe had liked the last step.
    with np.load(workdir / best.FILE) as saved:
        arrays = dict(saved)
    last, _ = build.restore_model(workdir, step="last")
    record = json.loads(str(arrays["record"])) | {"step": 6}
    arrays |= best._values(last.encoder) | {"record": json.dumps(record)}
    np.savez(workdir / best.FILE, **arrays)
    result = pipeline.judge_run(workdir, labels, draws=2, fine_tune=False)
    assert result["verdict"].startswith("The start is better with")
    assert result["verdict"].endswith("So the start is kept.")
    record, _ = best.read(workdir)
    assert record["step"] == 0
    assert record["rejected"] == {"step": 6, "start_share": 0.0}
    assert "the verdict found it worse" in best.summary(record)
    encoder, metadata = build.restore_encoder(workdir)
    found = np.asarray(encoder(images.astype("float32")))
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    assert metadata["chosen_by"]["rejected"]["step"] == 6
    module = pipeline._judged_module(workdir, result)
    found = encoder_lib.load_encoder(module).features(images)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    capsys.readouterr()
    # Judged again, it says the same, not that start and start are alike.
    assert pipeline.judge_run(workdir, labels) == result
    assert result["verdict"] in capsys.readouterr().out


class Channel(keras.layers.Layer):
    """Features that are one channel's mean."""

    def __init__(self, channel):
        super().__init__()
        self.channel = channel

    def build(self, shape):
        self.scale = self.add_weight(shape=(1, 4), initializer="ones")

    def call(self, images):
        mean = keras.ops.mean(images, (1, 2))[:, self.channel]
        # Whole steps of 7, so that JPEG lets no other channel through.
        return keras.ops.round(mean[:, None] * 255 / 7) * self.scale


def test_a_better_encoder_is_called_better(archive, tmp_path):
    for name, channel in (("frame", 1), ("video", 0)):
        inputs = keras.Input((None, None, 3))
        encoder = keras.Model(inputs, Channel(channel)(inputs))
        export_encoder(encoder, tmp_path / name)

    def judge(start, adapted, **options):
        return verdict.judge(
            tmp_path / start,
            tmp_path / adapted,
            archive / "labels.csv",
            archive / "data",
            image_sizes=[24],
            show=None,
            **options,
        )

    result = judge("frame", "video", fine_tune=False)
    # Red tells the class, green only the frame's number.
    assert result["verdict"].startswith("Adapted is better than the start with")
    assert np.mean(result["rows"]["adapted"]["all"]) == 1
    assert np.mean(result["rows"]["start"]["all"]) < 0.8
    assert result["num_labels"]["a tenth"] < result["num_labels"]["all"]
    again = judge("video", "frame", fine_tune=False)
    assert again["verdict"].startswith("The start is better with")
    # Each half of each division is trained and tested on once.
    num_parts = 2 * result["settings"]["draws"]
    assert len(result["rows"]["start"]["all"]) == num_parts
    for share, apart in result["differences"].items():
        rows = result["rows"]
        means = [np.mean(rows[name][share]) for name in ("adapted", "start")]
        assert apart["mean"] == pytest.approx(means[0] - means[1])
        assert apart["low"] <= apart["mean"] <= apart["high"]
        assert apart["videos"] == NUM_VIDEOS // 2
    same = judge("video", "video", fine_tune=False, draws=3)
    assert same["verdict"].startswith("No difference from the start is shown")


class RedIfLarge(Channel):
    """Red's mean for images of 40 pixels or more, else green's."""

    def call(self, images):
        self.channel = keras.ops.where(keras.ops.shape(images)[1] >= 40, 0, 1)
        mean = keras.ops.mean(images, (1, 2))
        mean = keras.ops.take(mean, self.channel, axis=1)
        return keras.ops.round(mean[:, None] * 255 / 7) * self.scale


class Trained:
    """The little of a model that a probe reads."""

    def __init__(self, encoder, steps_done):
        self.encoder, self.steps_done = encoder, steps_done


def test_the_probe_reads_where_the_start_is_best(archive, tmp_path):
    def probe_of(layer, step):
        inputs = keras.Input((None, None, 3))
        data = probe_lib.ProbeData(
            str(archive / "labels.csv"), 24, archive / "data", hold_back=True
        )
        found = probe_lib.Probe(data, 10, keep=best.KeepBest(tmp_path))
        found.set_model(Trained(keras.Model(inputs, layer(inputs)), step))
        found.begin()
        return found

    start = probe_of(RedIfLarge(0), 0)
    data = start.data
    assert data.image_sizes == [24, 36, 48]
    # Each image is tested as often as it trains, and no video is on both sides.
    assert len(data.divisions) == 2 * probe_lib.NUM_DIVISIONS
    for train, test in data.divisions:
        assert not {*data.groups[train]} & {*data.groups[test]}
        assert {*train, *test} == {*range(len(data.labels))}
    assert start.measure()["probe_linear"] == 1
    assert best.read(tmp_path)[0]["image_size"] == 48
    # A run that goes on reads at the same size, whatever is best later.
    later = probe_of(Channel(0), 10)
    assert later.data.images.shape[1:] == (48, 48, 3)
    assert later.measure()["probe_linear"] == 1
    scores, by_video = later._scores()
    assert by_video.sum() == pytest.approx(scores["probe_linear"])
    assert len(by_video) == NUM_VIDEOS // 2


def test_an_encoder_of_one_size_is_read_at_that_size(archive, tmp_path):
    encoder = keras.Sequential(
        [keras.Input((24, 24, 3)), keras.layers.Flatten()]
    )
    data = probe_lib.ProbeData(
        str(archive / "labels.csv"), 24, archive / "data", hold_back=True
    )
    found = probe_lib.Probe(data, 10, keep=best.KeepBest(tmp_path))
    found.set_model(Trained(encoder, 0))
    found.begin()
    found.measure()
    assert best.read(tmp_path)[0]["image_size"] == 24


def test_the_geometry_of_features_is_logged(archive, tmp_path, monkeypatch):
    config = small_config(archive, steps=4)
    assert not build.starts_pretrained(config)
    config.model.weights = "weights.h5"
    assert build.starts_pretrained(config)
    config.model.weights = "auto"
    monkeypatch.setattr(build, "starts_pretrained", lambda config: True)
    run.pretrain(config, tmp_path / "run", verbose=0)
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert 1 < float(rows[-1]["feature_rank"]) < 200
    assert float(rows[-1]["feature_alignment"]) > 0
    assert float(rows[-1]["feature_uniformity"]) < 0


def test_each_encoder_is_read_at_its_best_size(archive, tmp_path):
    for name, layer in (("red", Channel(0)), ("large", RedIfLarge(0))):
        inputs = keras.Input((None, None, 3))
        export_encoder(
            keras.Model(inputs, layer(inputs)),
            tmp_path / name,
            metadata={"image_size": [24, 24], "steps": 1},
        )
    result = verdict.judge(
        tmp_path / "red",
        tmp_path / "large",
        archive / "labels.csv",
        archive / "data",
        fine_tune=False,
        show=None,
    )
    sizes = result["settings"]["image_sizes"]
    assert (sizes["start"], sizes["adapted"]) == (24, 48)
    assert np.mean(result["rows"]["adapted"]["all"]) == 1
    assert "start 24, adapted 48" in verdict.text(result)
    told = {**result, "best_step": 9, "start_share": 0.5}
    assert "that of step 9, mixed with 0.5 of the start." in verdict.text(told)


def test_trials_choose_and_the_chosen_goes_on(archive, tmp_path):
    settings = {
        "data.image_size": 24,
        "data.batch_size": 4,
        "model.width": 0.125,
        "model.units": (1, 1, 1, 1),
        "model.weights": "none",
    }
    lines = []
    found = pipeline.adapt(
        "resnet50v2",
        archive / "data",
        archive / "labels.csv",
        tmp_path / "out",
        levels=("frame", "shot"),
        steps=4,
        trial_steps=2,
        settings=settings,
        fine_tune=False,
        show=lines.append,
    )
    assert {t["name"] for t in found.trials} == {"frame, 0.001", "shot, 0.001"}
    assert found.trials[0]["score"] >= found.trials[1]["score"]
    chosen = found.trials[0]["name"].split(",")[0]
    config = json.loads((tmp_path / "out/run/config.json").read_text())
    assert config["config"]["name"] == f"adapt_{chosen}_demo"
    assert config["config"]["train"]["steps"] == 4
    assert lines[:2] == [
        "Trial 1 of 2: frame, 0.001",
        "Trial 2 of 2: shot, 0.001",
    ]
    assert "short run" in lines[2] and found.verdict["verdict"] in lines[-1]
    assert lines[3].startswith(
        f"Adapting by {found.trials[0]['name']}: 4 steps"
    )
    images = np.random.default_rng(0).uniform(0, 1, (3, 24, 24, 3))
    np.testing.assert_allclose(
        encoder_lib.load_encoder(found.module).features(images),
        found.encoder(images.astype("float32")),
        atol=1e-5,
    )


def test_another_backend_is_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="Got: the backend 'jax'"):
        pipeline.adapt("resnet50v2", "data", "labels.csv", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_interval_is_over_the_videos():
    # Two images of each of three videos; two splits that test all of them.
    own = own_labels.OwnLabels(
        [], np.zeros(6), ("a",), np.array([5, 5, 7, 7, 9, 9]), np.arange(6)
    )
    splits = [
        verdict._Split(own, 0, np.array([]), np.array(test))
        for test in ([0, 1, 2, 3], [4, 5])
    ]
    ours = [np.array([1, 1, 0, 1], bool), np.array([1, 1], bool)]
    theirs = [np.array([0, 1, 1, 1], bool), np.array([0, 0], bool)]
    found = verdict._difference(own, splits, ours, theirs)
    # Videos 5, 7 and 9 add 1, -1 and 2 images; a split weighs one half.
    parts = np.array([1 / 8, -1 / 8, 2 / 4])
    assert found["mean"] == pytest.approx(parts.sum())
    reach = 4.302653 * parts.std(ddof=1) * np.sqrt(3)
    assert found["high"] - found["mean"] == pytest.approx(reach)
    assert found["mean"] - found["low"] == pytest.approx(reach)
    assert found["videos"] == 3
