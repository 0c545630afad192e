"""What shows how a run goes: probe, speed, views, projector, profile."""

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf
from PIL import Image

from vivi_keras.runs import run
from vivi_keras.trainer import callbacks as callbacks_lib
from vivi_keras.trainer import probe as probe_lib
from vivi_keras.trainer import tensorboard
from vivi_keras.training.configs import get_config


def class_folders(folder, names, count=6):
    """Images whose colour tells their class."""
    generator = np.random.default_rng(0)
    for level, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 40, (20, 28, 3)) + 90 * level
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(folder / name / f"{i}.png")
    return folder


def fit(callbacks, steps=4):
    model = small_models.make_model(keras.optimizers.SGD(0.01))
    model.fit(
        small_models.batches(steps).repeat(),
        epochs=2,
        steps_per_epoch=steps // 2,
        verbose=0,
        callbacks=callbacks,
    )
    return model


def test_a_probe_set_of_one_class_is_refused(tmp_path):
    folder = class_folders(tmp_path / "images", ["cat"])
    with pytest.raises(ValueError, match="at least 2 classes.*only 'cat'"):
        probe_lib.ProbeData(str(folder), 16)
    config = get_config("vivi_ex4_demo")
    config.data.dataset = small_dataset(tmp_path)
    config.data.update(batch_size=4, image_size=24)
    with pytest.raises(ValueError, match="at least 2 classes"):
        run.pretrain(config, tmp_path / "run", probe=str(folder))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="'digits'.*Got: 'no_such_set'"):
        probe_lib.ProbeData("no_such_set", 16)


def small_dataset(tmp_path):
    import data_helpers

    return data_helpers.write_dataset(
        tmp_path / "data",
        [data_helpers.video_example(v, [3] * 5) for v in range(4)],
    )


def test_a_probe_scores_the_features_and_moves_nothing(tmp_path):
    folder = class_folders(tmp_path / "images", ["dark", "light"], 12)
    data = probe_lib.ProbeData(str(folder), 16)
    assert data.images.shape == (24, 16, 16, 3)
    ((train, test),) = data.divisions
    assert [*train, *test] == [*range(24)] and len(train) == 12
    assert 0 <= data.images.min() < data.images.max() <= 1
    probe = probe_lib.Probe(data, every_steps=2)
    history = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: history.append(dict(logs))
    )
    model = fit([probe, keep])
    alone = fit([])
    np.testing.assert_array_equal(
        small_models.weights(model), small_models.weights(alone)
    )
    for logs in history:
        assert logs["probe_knn"] == logs["probe_linear"] == 1.0
    data.labels = np.random.default_rng(1).permutation(data.labels)
    assert probe.measure()["probe_knn"] < 1.0


def test_a_probe_is_logged_where_it_was_measured(tmp_path):
    data = probe_lib.ProbeData(str(class_folders(tmp_path, ["a", "b"])), 16)
    for arguments, expected in (
        ((data, 3), [False, True]),
        ((data, 9), [False, False]),
        ((data, 9, 4), [False, True]),
        ((data, 1), [True, True]),
    ):
        logged = []
        fit(
            [
                probe_lib.Probe(*arguments),
                keras.callbacks.LambdaCallback(
                    on_epoch_end=lambda epoch, logs, logged=logged: (
                        logged.append("probe_knn" in logs)
                    )
                ),
            ]
        )
        assert logged == expected, arguments[1:]


def test_profile_of_the_steps_asked_for(tmp_path):
    profile = tensorboard.Profile(tmp_path, 1, 3)
    fit([profile])
    assert profile.done
    assert len([*tmp_path.rglob("*.xplane.pb")]) == 1
    with pytest.raises(ValueError, match="0 <= start < stop. Got: 3, 3"):
        tensorboard.Profile(tmp_path, 3, 3)
    late = tensorboard.Profile(tmp_path / "late", 3, 99)  # past the end
    fit([late])
    assert len([*(tmp_path / "late").rglob("*.xplane.pb")]) == 1
    assert run.Options(profile_steps=["10", "20"]).profile_steps == (10, 20)
    for words in (["10"], ["a", "b"], ["1", "2", "3"]):
        with pytest.raises(ValueError, match="two step numbers"):
            run.Options(profile_steps=words)


def test_speed_is_of_all_steps_but_the_first():
    speed, logs = callbacks_lib.MeasureSpeed(images_per_step=48), []
    fit(
        [
            speed,
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, each: logs.append(dict(each))
            ),
        ]
    )
    assert speed.steps == 3
    for each in logs:
        assert each["images_per_second"] > 0
        assert 0 <= each["input_wait_share"] <= 1
    line = speed.report(started=speed.first_step_at - 7.25)
    assert "first step after 7.2 s" in line or "after 7.3 s" in line
    assert "images/s" in line and "waiting for input" in line


def test_tensorboard_gets_figures_by_step_and_views(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator

    pictures = np.linspace(0, 1, 2 * 3 * 4 * 5 * 3).reshape(2, 3, 4, 5, 3)
    grid = tensorboard.grid(pictures)
    assert grid.shape == (8, 15, 3)
    np.testing.assert_array_equal(grid[4:8, 5:10], pictures[1, 1])
    seen = []
    fit(
        [
            tensorboard.Summaries(tmp_path / "all"),
            tensorboard.ShowViews(
                tmp_path / "views", lambda step: seen.append(step) or pictures
            ),
        ]
    )
    assert seen == [2]  # of every 20th epoch
    events = event_accumulator.EventAccumulator(str(tmp_path / "all"))
    events.Reload()
    for name in ("loss", "learning_rate", "video_info_nce_loss"):
        assert [each.step for each in events.Tensors(name)] == [2, 4]
    rate = tf.make_ndarray(events.Tensors("learning_rate")[0].tensor_proto)
    assert rate == np.float32(0.01)
    views = event_accumulator.EventAccumulator(str(tmp_path / "views"))
    assert "views" in views.Reload().Tags()["tensors"]
