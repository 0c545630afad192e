"""Levels and the objective: padding, replicas, errors, own levels."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import reference_losses as reference
from keras import ops

from vivi_keras import objective as objectives
from vivi_keras.objective import LEVELS, Objective, make_level

CLIP = (3, 4, 2, 2)  # B, S, F, C
DEPTH = 6
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]], bool)
EVERY_LEVEL = {
    "frame_exemplar": {"head_units": 5},
    "rotation": {},
    "shot_exemplar": {"head_units": 5, "same_video_negatives": False},
    "shot_order": {"units": 7},
    "video_info_nce": {"units": 7, "pool": "attention"},
    "supervised": {"num_classes": 3},
}


def every_level(**changes):
    keras.utils.set_random_seed(1)
    built = Objective(
        [
            make_level(kind, **{**arguments, **changes.get(kind, {})})
            for kind, arguments in EVERY_LEVEL.items()
        ]
    )
    built.build((None, *CLIP[1:], DEPTH))
    return built


# Shots of videos 0 and 1 are the same footage, and one of video 2, which is
# another clip of video 0.
DUPLICATES = np.array([[5, 3, -1, -1], [-1, 3, 5, -1], [3, 5, -1, -1]])


def inputs_of(objective, features, images, mask=MASK, duplicates=None):
    """Inputs from [B, S, F, C, 4, D] clips and [M, C, 4, D] images."""
    turns = objective.num_turns
    rows = [
        np.reshape(x[..., :turns, :], (-1, DEPTH)) for x in (features, images)
    ]
    return objective.level_inputs(
        np.concatenate(rows),
        clip_shape=CLIP,
        shot_mask=ops.convert_to_tensor(mask),
        video_id=ops.convert_to_tensor(np.array([7, 8, 7])),
        labels=ops.convert_to_tensor(np.array([0, 2])),
        image_copies=CLIP[3],
        duplicates=duplicates,
    )


def left_out(numbers, videos):
    """Pairs of rows that are the same footage in two videos, one by one."""
    pairs = [*zip(numbers, videos, strict=True)]
    return np.array(
        [[a == b >= 0 and v != w for b, w in pairs] for a, v in pairs]
    )


def random_features(seed=0):
    rng = np.random.default_rng(seed)
    clips = rng.normal(size=(*CLIP, 4, DEPTH)).astype("float32")
    images = rng.normal(size=(2, CLIP[3], 4, DEPTH)).astype("float32")
    return clips, images


def summary(outputs):
    """Everything that a trainer reads of a level, as floats."""
    values = {}
    for name, output in outputs.items():
        weights = np.asarray(output.weights)
        losses = np.asarray(output.losses)
        values[name] = np.sum(losses * weights) / np.sum(weights)
        for metric, (value, _) in output.metrics.items():
            values[f"{name}_{metric}"] = float(value)
    return values


def test_padding_never_changes_a_value():
    objective = every_level()
    clips, images = random_features()
    expected = summary(objective(inputs_of(objective, clips, images)))
    for fill in (0.0, 1e4, -3.0):
        changed = np.where(MASK[:, :, None, None, None, None], clips, fill)
        actual = summary(objective(inputs_of(objective, changed, images)))
        assert actual.keys() == expected.keys()
        for name, value in actual.items():
            assert value == pytest.approx(expected[name], abs=1e-5), name


def test_masked_videos_equal_their_absence():
    levels = ("frame_exemplar", "shot_exemplar", "video_info_nce")
    objective = every_level()
    clips, images = random_features()
    mask = MASK.copy()
    mask[2] = False
    masked = objective(inputs_of(objective, clips, images, mask))
    inputs = objective.level_inputs(
        np.concatenate(
            [clips[:2].reshape(-1, DEPTH), images.reshape(-1, DEPTH)]
        ),
        clip_shape=(2, *CLIP[1:]),
        shot_mask=ops.convert_to_tensor(MASK[:2]),
        video_id=ops.convert_to_tensor(np.array([7, 8])),
        labels=ops.convert_to_tensor(np.array([0, 2])),
        image_copies=CLIP[3],
    )
    absent = summary(objective(inputs))
    for name, value in summary(masked).items():
        if name.startswith(levels):
            assert value == pytest.approx(absent[name], abs=1e-5), name


def test_batch_without_a_real_shot_is_zero_with_finite_gradients():
    import tensorflow as tf

    objective = every_level()
    clips, images = random_features()
    with tf.GradientTape() as tape:
        outputs = objective(
            inputs_of(objective, clips, images, np.zeros_like(MASK))
        )
        videos = {k: x for k, x in outputs.items() if k != "supervised"}
        total = sum(tf.reduce_sum(x.losses) for x in videos.values())
    for name in ("shot_exemplar", "shot_order", "video_info_nce"):
        assert np.sum(outputs[name].weights) == 0, name
        assert np.isfinite(outputs[name].losses).all(), name
    for gradient in tape.gradient(total, objective.trainable_variables):
        assert gradient is None or np.isfinite(gradient).all()


@pytest.mark.parametrize("duplicates", [None, DUPLICATES])
@pytest.mark.parametrize("loss", ["triplet", "nt_xent"])
def test_exemplars_equal_reference(loss, duplicates):
    settings = {"loss": loss, "temperature": 0.5}
    objective = every_level(frame_exemplar=settings, shot_exemplar=settings)
    clips, images = random_features()
    outputs = objective(
        inputs_of(objective, clips, images, duplicates=duplicates)
    )
    slow = {
        "triplet": reference.semi_hard_triplet,
        "nt_xent": lambda *a, **k: reference.multi_positive_nce(*a, 0.5, **k),
    }[loss]
    videos, shots, frames, copies = CLIP
    for name in ("frame_exemplar", "shot_exemplar"):
        head = next(x for x in objective.levels if x.name == name).head
        rows = np.asarray(head(clips[..., 0, :].reshape(-1, DEPTH)))
        size = copies if name == "frame_exemplar" else frames * copies
        mask = np.repeat(MASK.ravel(), frames * copies)
        groups = np.where(mask, np.arange(len(rows)) // size, -1)
        video = np.repeat([7, 8, 7], shots * frames * copies)
        numbers = np.full(len(video), -1)
        if duplicates is not None:
            numbers = np.repeat(duplicates.ravel(), frames * copies)
        exclude = left_out(numbers, video)
        assert exclude.any() == (duplicates is not None)
        if name == "shot_exemplar":  # no negatives from the same video
            exclude |= video[:, None] == video[None, :]
        else:
            more = np.asarray(head(images[..., 0, :].reshape(-1, DEPTH)))
            rows = np.concatenate([rows, more])
            groups = np.r_[groups, 1000 + np.arange(len(more)) // copies]
            exclude = np.pad(exclude, (0, len(more)))
        expected = slow(rows, groups, exclude=exclude)
        np.testing.assert_allclose(
            outputs[name].losses, expected, rtol=0, atol=1e-5
        )
        np.testing.assert_array_equal(outputs[name].weights, groups >= 0)


@pytest.mark.parametrize("own_negatives", [False, True])
@pytest.mark.parametrize("duplicates", [None, DUPLICATES])
def test_video_info_nce_equals_reference(duplicates, own_negatives):
    objective = every_level(
        video_info_nce={"same_video_negatives": own_negatives}
    )
    level = objective.levels[4]
    clips, images = random_features()
    output = level(inputs_of(objective, clips, images, duplicates=duplicates))
    features = clips[..., 0, :].reshape(3, 4, 4, DEPTH)
    shots = np.asarray(level.pool(features))
    predicted = np.asarray(level.predictor(shots))
    video = np.array([7, 8, 7])
    losses, weights = [], []
    for known in range(3):
        for target in range(known + 1, 4):
            real = MASK[:, target]
            contexts = predicted[:, known, target - known - 1]
            queries, keys = level.critic((contexts, shots[:, target]))
            exclude = np.repeat(~real[None, :], 3, axis=0)
            if not own_negatives:
                exclude |= video[:, None] == video
            if duplicates is not None:
                exclude |= left_out(duplicates[:, target], video)
            each = reference.info_nce(queries, keys, exclude=exclude)
            losses += list(np.where(real, each, 0))
            weights += list(real)
    np.testing.assert_allclose(output.losses, losses, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(output.weights, weights)


def test_contexts_see_no_later_shot():
    level = make_level("video_info_nce", units=7).predictor
    shots = np.random.default_rng(0).normal(size=(2, 4, 5)).astype("float32")
    before = np.asarray(level(shots))
    shots[:, 2:] = 9.0
    after = np.asarray(level(shots))
    np.testing.assert_allclose(after[:, :2], before[:, :2], atol=1e-6)
    assert np.abs(after[:, 2] - before[:, 2]).max() > 1e-3


def test_rotations_are_quarter_turns_in_order():
    objective = every_level()
    images = np.random.default_rng(0).random((3, 5, 5, 3)).astype("float32")
    turned = np.asarray(objective.transform_images(images))
    for n in range(3):
        for t in range(4):
            np.testing.assert_array_equal(
                turned[4 * n + t], np.rot90(images[n], t)
            )
    with pytest.raises(ValueError, match="square"):
        objective.transform_images(np.zeros((1, 4, 5, 3)))
    assert Objective([make_level("shot_order")]).image_transforms == ()


@pytest.mark.parametrize("name", ["frame_exemplar", "shot_exemplar"])
def test_sigreg_equals_reference(name):
    settings = {"loss": "sigreg", "sigreg_weight": 0.2, "num_directions": 900}
    objective = every_level(**{name: settings})
    clips, images = random_features()
    inputs = inputs_of(objective, 3 * clips, images)
    output = objective(inputs)[name]
    head = next(x for x in objective.levels if x.name == name).head
    groups = 3 * clips[..., 0, :].reshape(*MASK.shape, -1, DEPTH)
    mask = MASK
    if name == "frame_exemplar":
        groups = groups.reshape(-1, CLIP[3], DEPTH)
        groups = np.concatenate([groups, images[..., 0, :]])
        mask = np.r_[np.repeat(MASK.ravel(), CLIP[2]), np.ones(len(images))]
    rows = np.asarray(head(groups.reshape(-1, *groups.shape[-2:])))
    mask = mask.ravel() > 0
    apart = ((rows - rows.mean(axis=1, keepdims=True)) ** 2).mean(axis=(1, 2))
    # The mean over all directions is that over many random ones.
    angles = np.random.default_rng(0).normal(size=(rows.shape[2], 3000))
    angles /= np.linalg.norm(angles, axis=0)
    distance = np.mean(
        [reference.sigreg(copy, mask, angles) for copy in rows.swapaxes(0, 1)]
    )
    found = float(output.metrics["normality_distance"][0])
    assert found == pytest.approx(distance, rel=0.03)
    np.testing.assert_allclose(
        np.asarray(output.losses), 0.8 * apart + 0.2 * found, rtol=1e-4
    )
    np.testing.assert_array_equal(output.weights, mask)
    # Other directions in another step, the same ones again in this one.
    again = objective(dataclasses.replace(inputs, step=0))[name]
    np.testing.assert_array_equal(again.losses, output.losses)
    other = objective(dataclasses.replace(inputs, step=1))[name]
    assert np.abs(other.losses - output.losses).max() > 1e-4


def test_config_round_trip():
    objective = every_level(
        frame_exemplar={"loss": "nt_xent", "weight": 0.3, "name": "copies"}
    )
    text = json.dumps(objective.get_config())
    again = Objective.from_config(json.loads(text))
    assert [x.get_config() for x in again.levels] == [
        x.get_config() for x in objective.levels
    ]
    assert [x.weight for x in again.levels] == [0.3, 1, 1, 1, 0.04, 1]


def test_every_level_learns_through_all_its_variables():
    import tensorflow as tf

    objective = every_level()
    clips, images = random_features()
    with tf.GradientTape() as tape:
        outputs = objective(inputs_of(objective, clips, images))
        total = sum(tf.reduce_sum(x.losses) for x in outputs.values())
    gradients = tape.gradient(total, objective.trainable_variables)
    for variable, gradient in zip(
        objective.trainable_variables, gradients, strict=True
    ):
        assert gradient is not None, variable.path


@pytest.mark.parametrize(
    "kind, arguments, clip, message",
    [
        ("frame_exemplar", {}, (4, 2, 1), "2 copies"),
        ("shot_exemplar", {}, (4, 1, 1), "frames_per_shot"),
        ("video_info_nce", {}, (1, 2, 1), "2 shots"),
        ("shot_order", {}, (1, 2, 1), "2 shots"),
        ("shot_exemplar", {"weight": -0.1}, None, "weight.*-0.1"),
        ("shot_exemplar", {"margin": 0}, None, "margin"),
        ("shot_exemplar", {"loss": "tripet"}, None, "Did you mean 'triplet'"),
        ("video_info_nce", {"predictor": "lstn"}, None, "Did you mean 'lstm'"),
        ("shot_exemplar", {"margn": 1}, None, "Did you mean 'margin'"),
        ("shot_exempla", {}, None, "Did you mean 'shot_exemplar'"),
        ("supervised", {"num_classes": 1}, None, "num_classes"),
        ("video_info_nce", {"weight": -1}, None, "'video_info_nce'.*-1"),
        ("video_info_nce", {"units": 0}, None, "units.*0"),
        ("video_info_nce", {"temperature": 0}, None, "temperature > 0.*0"),
        ("video_info_nce", {"pool": "max"}, None, "pool.*'max'"),
        ("shot_exemplar", {"head_units": 0}, None, "head_units >= 1"),
        ("shot_exemplar", {"negatives": "local"}, None, "negatives.*'local'"),
        ("shot_order", {"units": 0}, None, "units >= 1"),
        ("shot_exemplar", {"sigreg_weight": 1.0}, None, "sigreg_weight in"),
        ("shot_exemplar", {"num_directions": 0}, None, "num_directions >= 1"),
    ],
)
def test_bad_input_fails_before_any_step(kind, arguments, clip, message):
    with pytest.raises(ValueError, match=message):
        level = make_level(kind, **arguments)
        Objective([level]).build((None, *clip, DEPTH))


def test_objectives_that_cannot_be():
    with pytest.raises(ValueError, match="at least one level"):
        Objective([])
    with pytest.raises(ValueError, match="own name"):
        Objective([make_level("rotation"), make_level("rotation")])
    with pytest.raises(ValueError, match="weight > 0"):
        Objective([make_level("rotation", weight=0)])


def test_collapse_shows_in_the_metrics():
    objective = every_level()
    clips, images = random_features()
    healthy = summary(objective(inputs_of(objective, clips, images)))
    same = summary(
        objective(inputs_of(objective, np.ones_like(clips), images * 0 + 1))
    )
    assert healthy["shot_exemplar_spread"] > 0.8
    assert same["shot_exemplar_spread"] < 1e-3
    assert same["shot_exemplar_negative_distance"] < 1e-5
    assert same["shot_exemplar"] == pytest.approx(0.5)  # the margin
    assert same["video_info_nce_accuracy"] <= same["video_info_nce_chance"]
    line = np.linspace(-1, 1, np.prod(CLIP)).reshape(*CLIP, 1, 1)
    thin = line * np.ones((4, DEPTH)) + np.arange(DEPTH)
    thin = summary(
        objective(inputs_of(objective, thin.astype("float32"), images))
    )
    assert thin["shot_exemplar_effective_rank"] < 1.3


REPLICAS = """
import sys
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 4)
import keras
from vivi_keras.objective import Objective, make_level
from vivi_keras.strategies import StrategyReplicas

rng = np.random.default_rng(0)
B, S, F, C, D = 4, 3, 2, 2, 6
clips = rng.normal(size=(B, S, F, C, 4, D)).astype("float32")
mask = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0]], bool)
video = np.array([5, 6, 5, 9])
images = rng.normal(size=(4, C, 4, D)).astype("float32")
labels = np.array([0, 1, 2, 0])

def run(count, kind, arguments):
    keras.utils.set_random_seed(3)
    objective = Objective([make_level(kind, **arguments)])
    with strategy.scope():
        objective.build((None, S, F, C, D))
    turns = objective.num_turns
    def step(clips, mask, video, images, labels):
        replicas = StrategyReplicas(tf.distribute.get_replica_context())
        with tf.GradientTape() as tape:
            tape.watch([clips, images])
            rows = [tf.reshape(x[..., :turns, :], (-1, D))
                    for x in (clips, images)]
            inputs = objective.level_inputs(
                tf.concat(rows, 0), clip_shape=(B // count, S, F, C),
                shot_mask=mask, video_id=video, replicas=replicas,
                labels=labels, image_copies=C)
            (output,) = objective(inputs, training=True).values()
            loss = tf.reduce_sum(output.losses * output.weights)
        gradient = tape.gradient(loss, [clips, *objective.trainable_variables])
        return (loss, tf.reduce_sum(output.weights), gradient[0], gradient[1:])
    arrays = (clips, mask, video, images, labels)
    def part(context):
        i = context.replica_id_in_sync_group
        return tuple(tf.constant(np.split(x, count)[i]) for x in arrays)
    parts = strategy.experimental_distribute_values_from_function(part)
    values = []
    @tf.function
    def go(parts):
        return strategy.run(step, args=parts)
    loss, weight, clip_gradient, gradients = go(parts)
    local = strategy.experimental_local_results
    total = sum(x.numpy() for x in local(loss))
    weights = sum(x.numpy() for x in local(weight))
    by_clip = np.concatenate([x.numpy() for x in local(clip_gradient)])
    by_variable = [sum(x.numpy() for x in local(g)) for g in gradients]
    return [total / weights, by_clip, *by_variable]

cases = [
    ("frame_exemplar", {"head_units": 5}),
    ("frame_exemplar", {"head_units": 5, "loss": "nt_xent"}),
    ("frame_exemplar", {"head_units": 5, "loss": "sigreg"}),
    ("shot_exemplar", {"head_units": 5, "loss": "sigreg"}),
    ("shot_exemplar", {"head_units": 5}),
    ("shot_exemplar", {"head_units": 5, "same_video_negatives": False}),
    ("rotation", {}),
    ("shot_order", {"units": 5}),
    ("video_info_nce", {"units": 5}),
    ("video_info_nce", {"units": 5, "predictor": "mlp", "critic": "cosine",
                        "pool": "attention"}),
    ("supervised", {"num_classes": 3}),
]
count, path = int(sys.argv[1]), sys.argv[2]
strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])
values = [x for case in cases for x in run(count, *case)]
own = {"head_units": 5, "negatives": "replica"}
values.append(run(count, "shot_exemplar", own)[0])
np.savez(path, *values)
"""


@pytest.mark.slow  # traces twelve objectives in three processes
def test_one_two_and_four_replicas_agree(tmp_path):
    # One process for each count: collectives keep the first group's size.
    values = {}
    for count in (1, 2, 4):
        path = tmp_path / f"{count}.npz"
        done = subprocess.run(
            [sys.executable, "-c", REPLICAS, str(count), str(path)],
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        values[count] = list(np.load(path).values())
    for count in (2, 4):
        pairs = zip(values[1][:-1], values[count][:-1], strict=True)
        for place, (one, several) in enumerate(pairs):
            np.testing.assert_allclose(
                several, one, rtol=1e-6, atol=1e-5, err_msg=f"{count}: {place}"
            )
        # Negatives of the own replica only are another objective.
        assert abs(values[1][-1] - values[count][-1]) > 1e-3


def test_own_level_of_the_documentation():
    page = pathlib.Path(__file__).parents[1] / "docs" / "method.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    (example,) = [block for block in blocks if "class ShotDistance" in block]
    assert len(example.splitlines()) <= 40
    names = {}
    exec(example, names)  # noqa: S102 - our own page
    try:
        objective = Objective([make_level("shot_distance", weight=0.5)])
        objective.build((None, *CLIP[1:], DEPTH))
        clips, images = random_features()
        output = objective(inputs_of(objective, clips, images))
        values = summary(output)
        assert np.isfinite(values["shot_distance"])
        assert "shot_distance_right" in values
    finally:
        LEVELS.pop("shot_distance", None)
    assert "ShotDistance" not in vars(objectives)
