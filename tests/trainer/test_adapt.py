"""Each guard does what it says to an encoder that is trained."""

import keras
import numpy as np
import pytest
import small_models

from vivi_keras.models import adapt
from vivi_keras.models.efficientnet import EfficientNetLite
from vivi_keras.models.resnet import ResNet50V2
from vivi_keras.trainer.model import ViviModel


def encoder():
    keras.utils.set_random_seed(0)
    return ResNet50V2(0.125, (1, 1, 1, 1), weight_decay=0.0)


def trained(own, steps=1, optimizer=None, **guard):
    """The model after some steps; the weights of its encoder before them."""
    before = [np.array(v) for v in own.variables]
    objective = small_models.make_model("sgd").objective
    model = ViviModel(
        own,
        objective,
        views=None,
        guard=adapt.Guard(**guard) if guard else None,
    )
    if optimizer is None:
        optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer, run_eagerly=False)
    model.fit(
        small_models.batches(steps=steps, rows=4, padded=False), verbose=0
    )
    return model, before


def changes(model, before):
    """Dict path -> how far each variable of the encoder has moved."""
    return {
        v.path: np.asarray(v) - old
        for v, old in zip(model.encoder.variables, before, strict=True)
    }


def moved(model, before):
    return {k for k, v in changes(model, before).items() if np.any(v)}


def test_heads_are_trained_alone_first():
    for steps, moves in ((2, False), (3, True)):
        own = small_models.make_encoder()
        model, before = trained(
            own, steps, keras.optimizers.AdamW(1e-3), warmup_head_steps=2
        )
        assert bool(moved(model, before)) == moves
        # Heads had gradients.
        paths = {v.path for v in own.variables}
        heads = [v for v in model.trainable_variables if v.path not in paths]
        assert heads and all(
            np.any(model.optimizer._momentums[k])
            for k, v in enumerate(model.trainable_variables)
            if v.path not in paths and v.path.endswith("kernel")
        )


@pytest.mark.parametrize(
    ("trainable", "fits"),
    [
        ("last:1", lambda path: "stage4" in path or "final" in path),
        ("norm", lambda path: path.endswith(("gamma", "beta"))),
        ("bias", lambda path: path.endswith("beta")),
    ],
)
def test_only_what_is_asked_is_trained(trainable, fits):
    own = encoder()
    paths = {v.path for v in own.trainable_variables}
    adapt.select_trainable(own, trainable)
    model, before = trained(own)
    found = moved(model, before) & paths
    # Gradients of a few kernels before a norm can vanish.
    wanted = {path for path in paths if fits(path)}
    assert found <= wanted and len(found) > 0.9 * len(wanted)
    adapt.release(own)
    assert {v.path for v in own.trainable_variables} == paths


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ("last:9", "has only 5 blocks"),
        ("last:0", "must be all, last:N"),
        ("lats:1", "Got: 'lats:1'"),
        ("first", "must be all, last:N"),
    ],
)
def test_a_wrong_choice_is_refused(trainable, message):
    with pytest.raises(ValueError, match=message):
        adapt.select_trainable(encoder(), trainable)


def test_a_choice_that_leaves_nothing_is_refused():
    own = small_models.make_encoder(norm=False)
    with pytest.raises(ValueError, match="'norm' leaves nothing of"):
        adapt.select_trainable(own, "norm")
    assert len(own.trainable_variables) == 4


def test_blocks_go_from_input_to_output():
    found = adapt.blocks(encoder())
    names = [part[0].path.partition("/")[0] for part in found]
    assert names[0] == "root_conv"
    assert [name.partition("_")[0] for name in names[1:]] == [
        f"stage{k}" for k in (1, 2, 3, 4)
    ]
    assert found[-1][-1].path.startswith("final_norm")
    assert len(adapt.blocks(EfficientNetLite(0))) == 17
    plain = adapt.blocks(small_models.make_encoder())
    assert [len(part) for part in plain] == [2, 2, 2]


def test_steps_shrink_from_block_to_block():
    plain = changes(*trained(encoder()))
    own = encoder()
    slow = changes(*trained(own, layer_decay=0.5))
    parts = adapt.blocks(own)
    for index, part in enumerate(parts):
        for variable in part:
            share = 0.5 ** (len(parts) - index)
            np.testing.assert_allclose(
                slow[variable.path],
                share * plain[variable.path],
                rtol=1e-2,
                atol=1e-6,
            )
    # Moving averages are not slowed down.
    path = "final_norm/moving_mean"
    np.testing.assert_allclose(slow[path], plain[path], rtol=1e-4, atol=1e-6)


def test_statistics_stand_still():
    own = encoder()
    adapt.freeze_statistics(own)
    images = np.random.default_rng(0).uniform(0, 1, (4, 32, 32, 3))
    images = images.astype("float32")
    np.testing.assert_allclose(
        own(images, training=True), own(images), rtol=1e-4, atol=1e-5
    )
    model, before = trained(own)
    found = moved(model, before)
    assert not [path for path in found if "moving" in path]
    assert [path for path in found if path.endswith("gamma")]
    adapt.release(own)
    trained_again = np.asarray(own(images, training=True))
    assert np.abs(trained_again - np.asarray(own(images))).max() > 1e-3


def test_features_stay_close_to_the_start():
    (batch,) = small_models.batches(steps=1, rows=4, padded=False)
    images = np.reshape(batch["frames"], (-1, 16, 16, 3)) / np.float32(255)

    def small():
        keras.utils.set_random_seed(0)
        return small_models.make_encoder(norm=False)

    expected = np.asarray(small()(images))

    def distance(**guard):
        model, _ = trained(small(), 10, keras.optimizers.Adam(1e-2), **guard)
        found = np.asarray(model.encoder(images))
        lengths = [np.linalg.norm(x, axis=1) for x in (found, expected)]
        cosines = np.sum(found * expected, 1) / lengths[0] / lengths[1]
        return model, 1 - np.mean(cosines)

    _, far = distance()
    model, near = distance(start=small(), keep_close=100.0)
    assert near < 0.5 * far
    assert "keep_close_loss" in model.metric_names
    # The start itself is not trained.
    np.testing.assert_array_equal(model.start(images), expected)


def test_distances_are_cosine_distances():
    generator = np.random.default_rng(0)
    views = generator.uniform(0, 1, (3, 16, 16, 3)).astype("float32")
    start = encoder()
    features = generator.normal(size=(3, 256)).astype("float32")
    other = np.asarray(start(views))
    expected = [
        1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(features, other, strict=True)
    ]
    guard = adapt.Guard(start=start, keep_close=1.0)
    np.testing.assert_allclose(
        guard.distances(features, [views[:1], views[1:]]), expected, atol=1e-5
    )
