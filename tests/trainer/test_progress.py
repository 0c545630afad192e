"""What `fit` shows while it runs, and figures measured every N steps."""

import io
import re

import numpy as np
import pytest
import small_models
import tensorflow as tf

from vivi_keras.trainer import callbacks, probe


class Stream(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


def shown(terminal, **arguments):
    stream = Stream(terminal)
    model = small_models.make_model("sgd")
    model.fit(
        small_models.batches(3).repeat(),
        steps_per_epoch=3,
        epochs=2,
        verbose=0,
        callbacks=[callbacks.ShowProgress(stream, **arguments)],
    )
    assert len(model.metric_names) > 3
    return stream.getvalue()


def test_a_terminal_shows_three_figures_in_80_columns():
    text = shown(True, every_seconds=0.0)
    states = re.split("[\r\n]", text)[:-1]
    assert len(states) == 2 * (3 + 1)
    for state in states:
        assert len(state) < 80
        assert re.match(
            r"epoch [12]/2(, step [123]/3, \d+ s left)?: loss [\d.]+, sh", state
        )
    assert text.count("\n") == 2
    assert states[-1].count(",") == 2 and "video_info_nce_loss" in states[-1]


def test_a_file_gets_a_line_a_minute_and_one_at_the_end():
    (line,) = shown(False).splitlines()
    assert line.startswith("epoch 2/2: loss ") and len(line) < 80
    lines = shown(False, every_seconds=0.0).splitlines()
    assert len(lines) == 6 + 1
    assert lines[1].startswith("epoch 1/2, step 2/3, ")


def test_fit_shows_it_by_default(capsys):
    model = small_models.make_model("sgd")
    model.fit(small_models.batches(2))
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"epoch 1/1: loss [\d.]+, .*", line)
    model.fit(small_models.batches(1), verbose=0)
    assert capsys.readouterr().out == ""


class Count(callbacks.MeasureEvery):
    """Measures the step."""

    def measure(self):
        return {"measured_at": self.model.steps_done}


@pytest.mark.parametrize(
    "every, epoch_steps, expected",
    [
        # The end of no epoch is a multiple, or only some are.
        (4, 3, [np.nan, 4, 8, 12]),
        (2, 3, [2, 6, 8, 12]),
        (5, 3, [np.nan, 5, np.nan, 12]),
        (3, 3, [3, 6, 9, 12]),
    ],
)
def test_figures_are_measured_wherever_epochs_end(every, epoch_steps, expected):
    model = small_models.make_model("sgd")
    rows = []

    class Rows(callbacks.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            rows.append(logs.get("measured_at", np.nan))

    model.fit(
        small_models.batches(3).repeat(),
        steps_per_epoch=epoch_steps,
        epochs=4,
        verbose=0,
        callbacks=[Count(every, last_step=12), Rows()],
    )
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("shape", [(40, 64), (9, 7), (24, 24)])
def test_probe_images_are_resized_as_by_tensorflow(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected = tf.image.resize(image, (24, 24), antialias=True) / 255
    np.testing.assert_allclose(probe._resized(image, 24), expected, atol=1e-6)


def test_accuracies_are_those_of_tensorflow():
    random = np.random.default_rng(0)
    logits = random.integers(0, 4, (60, 7)).astype("float32")  # with ties
    logits[3, 2] = np.nan
    labels = random.integers(0, 7, 60)
    batches = [
        {"image": logits[rows], "label": labels[rows]}
        for rows in (slice(40), slice(40, 60))
    ]
    found = callbacks.test_labels(lambda images: images, batches)
    for k in (1, 5):
        hits = tf.math.in_top_k(labels, logits, k)
        assert found[f"test_top{k}"] == np.mean(hits)


def test_labels_and_probes_are_measured_so():
    from vivi_keras.trainer.probe import Probe

    for kind in (callbacks.TestLabels, Probe):
        assert issubclass(kind, callbacks.MeasureEvery)
        for name in ("on_epoch_end", "on_train_begin"):
            assert name not in vars(kind)
    with pytest.raises(ValueError, match="every_steps of TestLabels must be"):
        callbacks.TestLabels(None, 0)
