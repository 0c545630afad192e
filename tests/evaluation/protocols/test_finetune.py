"""Fine-tuning against a plain loop, its sweep, and interrupted sweeps."""

import dataclasses
import types

import evaluation_modules
import numpy as np
import pytest
import tensorflow as tf

from vivi_keras.evaluation import budget, evaluate
from vivi_keras.evaluation.protocols import finetune
from vivi_keras.evaluation.run import Ledger
from vivi_keras.evaluation.tasks import offline_tfds
from vivi_keras.evaluation.tasks import task as task_lib
from vivi_keras.features.encoder import load_encoder
from vivi_keras.features.finetune import (
    FineTuner,
    Sweep,
    Untrainable,
    endless_order,
)

SWEEP = Sweep((1.0, 0.001), (5, 40), batch_size=20, runs=2)


def colours(classes=3, count=60, name="colours"):
    """Images whose class is a channel's brightness, with some noise."""
    generator = np.random.default_rng(classes)
    labels = np.arange(count) % classes
    images = generator.integers(0, 60, (count, 14, 18, 3), np.uint8)
    levels = np.linspace(20, 190, -(-classes // 3)).astype(np.uint8)
    for label in range(classes):
        images[labels == label, :, :, label % 3] += levels[label // 3]
    both = task_lib.LabelledImages(images, labels)
    names = [str(i) for i in range(classes)]
    return task_lib.ImageTask(name, "natural", names, both, both)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return evaluation_modules.save(tmp_path_factory.mktemp("module") / "tiny")


@pytest.fixture
def tuner(module):
    return FineTuner(load_encoder(module))


def test_vtab_sweep_is_the_published_one():
    sweep = finetune.VTAB
    assert sweep.settings == [
        (0.1, 2500),
        (0.1, 10000),
        (0.01, 2500),
        (0.01, 10000),
    ]
    assert (sweep.batch_size, sweep.runs, sweep.momentum) == (512, 3, 0.9)
    rates = [
        sweep.rate(step, 0.1, 2500)
        for step in (0, 750, 751, 1500, 1501, 2250, 2251, 2499)
    ]
    expected = [0.1, 0.1, 1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4]
    np.testing.assert_allclose(rates, expected)
    with pytest.raises(ValueError, match="steps"):
        Sweep(steps=(0,))


def test_training_is_a_plain_loop(tuner):
    """The wide, masked head trains as one of just the classes does."""
    task = colours()
    images = np.concatenate([b[0] for b in task.batches("train", (14, 18), 9)])
    labels, setting = task.train.labels, (2.0, 10)
    tuner.train(images, labels, 3, SWEEP, setting, seed=7)

    net = evaluation_modules.TinyEncoder()
    weights = [net.kernel, tf.Variable(tf.zeros((12, 3)))]
    weights.append(tf.Variable(tf.zeros(3)))
    sums = [np.zeros(w.shape, np.float32) for w in weights]
    order = endless_order(60, 20, 7)
    for step in range(10):
        rows = next(order)
        with tf.GradientTape() as tape:
            values = net(tf.constant(images[rows]), training=True)
            logits = values @ weights[1] + weights[2]
            chances = tf.nn.log_softmax(logits)
            loss = -tf.reduce_mean(
                tf.gather(chances, labels[rows], batch_dims=1)
            )
        rate = 2.0 * 0.1 ** sum(step > at for at in (3, 6, 9))
        for place, gradient in enumerate(tape.gradient(loss, weights)):
            sums[place] = 0.9 * sums[place] + gradient.numpy()
            weights[place].assign_sub(rate * sums[place])
    head = tuner._heads[16]
    # The order of the restored module's trainable variables is its own.
    (kernel,) = tuner.encoder.trainable_variables
    np.testing.assert_allclose(kernel, weights[0], atol=1e-5)
    np.testing.assert_allclose(head.kernel[:, :3], weights[1], atol=1e-5)
    np.testing.assert_allclose(head.bias[:3], weights[2], atol=1e-5)
    np.testing.assert_array_equal(head.kernel[:, 3:], np.zeros((12, 13)))
    assert np.abs(kernel - tuner._start[0]).max() > 1e-3


@pytest.mark.parametrize("frozen", [False, True])
def test_statistics_are_frozen_on_request(module, frozen):
    tuner = FineTuner(load_encoder(module), freeze_statistics=frozen)
    task = colours()
    images = np.concatenate([b[0] for b in task.batches("train", (14, 18), 9)])
    tuner.train(images, task.train.labels, 3, SWEEP, (0.5, 6), seed=7)
    changed = {
        "moving" in variable.name: np.abs(variable.numpy() - start).max() > 1e-4
        for variable, start in zip(
            tuner.encoder.variables, tuner._start, strict=True
        )
    }
    assert changed == {False: True, True: not frozen}


def test_order_takes_each_image_once_a_pass():
    order = endless_order(7, 3, seed=1)
    found = np.concatenate([next(order) for _ in range(7)])
    for start in range(0, 21, 7):
        assert sorted(found[start : start + 7]) == list(range(7))
    assert list(found[:7]) != list(found[7:14])


def test_sweep_learns_chooses_and_restores(tuner):
    before = [v.numpy() for v in tuner.encoder.variables]
    results = finetune.run(tuner, colours(), 16, SWEEP)
    assert [r["seed"] for r in results] == [0, 1]
    for result in results:
        chosen = f"{result['learning_rate']:g}x{result['steps']}"
        found = result["validation"]
        assert len(found) == 4 and found[chosen] == max(found.values())
        assert result["accuracy"] > 0.9  # chance is a third
        assert result["num_train"] == 60
    for variable, value in zip(tuner.encoder.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    again = finetune.run(tuner, colours(), 16, SWEEP)
    assert again == results


def test_tasks_share_compiled_steps(tuner):
    for classes in (3, 5, 16):
        finetune.run(tuner, colours(classes), 16, SWEEP, seeds=[0])
    assert list(tuner._heads) == [16]
    assert tuner._heads[16].step.experimental_get_tracing_count() == 1


def test_interrupted_sweep_goes_on(tuner, tmp_path):
    class Stop(Exception):
        pass

    steps = {"left": 5 + 40 + 3, "done": 0}

    def count():
        steps["done"] += 1
        if steps["done"] == steps["left"]:
            raise Stop

    file = tmp_path / "sweep.json"
    with pytest.raises(Stop):  # in the third of four settings
        finetune.run(tuner, colours(), 16, SWEEP, Ledger(file), on_step=count)
    assert len(Ledger(file)) == 2
    steps.update(left=-1, done=0)
    resumed = finetune.run(
        tuner, colours(), 16, SWEEP, Ledger(file), on_step=count
    )
    whole = finetune.run(tuner, colours(), 16, SWEEP)
    assert resumed == whole
    # The first two settings of the first run were not repeated.
    total = 2 * (5 + 40 + 5 + 40) + sum(r["steps"] for r in whole)
    assert steps["done"] == total - 45


def test_runs_of_one_draw_share_the_choice(tuner):
    class Fixed(task_lib.ImageTask):
        has_draws = False

        def split(self, seed=0):
            return task_lib.draw_split(60)

    made = colours()
    task = Fixed("fixed", "natural", "012", made.train, made.test)
    ledger = {}
    results = finetune.run(tuner, task, 16, SWEEP, ledger)
    assert sum(key.startswith("validation") for key in ledger) == 4
    assert results[0]["validation"] == results[1]["validation"]


@pytest.mark.parametrize("kind", ["fixed", "maps"])
def test_modules_of_other_kinds_train(tmp_path, kind):
    if kind == "fixed":
        evaluation_modules.save(tmp_path / kind, size=20, batch=4)
    else:
        evaluation_modules.save(
            tmp_path / kind, evaluation_modules.MapEncoder()
        )
    tuner = FineTuner(load_encoder(tmp_path / kind))
    sweep = dataclasses.replace(SWEEP, runs=1, steps=(150,))
    (result,) = finetune.run(tuner, colours(), 16, sweep)
    assert result["accuracy"] > 0.8
    assert tuner.encoder.notes  # the size, or the maps


def test_divergence_is_no_choice(tuner):
    sweep = dataclasses.replace(SWEEP, learning_rates=(1e30, 1.0), runs=1)
    (result,) = finetune.run(tuner, colours(), 16, sweep)
    assert result["learning_rate"] == 1.0
    assert result["validation"]["1e+30x40"] == -1.0
    sweep = dataclasses.replace(sweep, learning_rates=(1e30,))
    with pytest.raises(FloatingPointError, match="no setting"):
        finetune.run(tuner, colours(), 16, sweep)


def test_suite_lists_what_cannot_be_trained(tmp_path, monkeypatch, module):
    evaluation_modules.save_signature_only(tmp_path / "only")
    monkeypatch.setattr(offline_tfds, "load_task", lambda *unused: colours())
    results = evaluate.evaluate(
        module,
        tmp_path / "out",
        tasks=["digits"],
        baselines={"signature": tmp_path / "only"},
        protocols=["finetune"],
        image_size=16,
        learning_rates=SWEEP.learning_rates,
        steps=SWEEP.steps,
        batch_size=SWEEP.batch_size,
        runs=1,
        cache_dir=None,
        show=None,
    )
    assert [row["encoder"] for row in results["rows"]] == ["tiny"]
    reasons = {r["encoder"]: r["reason"] for r in results["not_run"]}
    assert set(reasons) == {"signature", "raw 16x16 pixels"}
    assert all("no trainable variables" in r for r in reasons.values())
    assert not list((tmp_path / "out" / "tasks").glob("*.part.json"))


def test_the_rate_is_that_of_the_public_code():
    """It calls tf.train.piecewise_constant with the steps' own count."""
    sweep = finetune.VTAB
    for total in (2500, 10000):
        boundaries = [int(share * total) for share in sweep.decay_at]
        values = [0.1, 0.01, 0.001, 0.0001]
        for step in {0, *boundaries, *(b + 1 for b in boundaries), total - 1}:
            rate = tf.compat.v1.train.piecewise_constant(
                tf.constant(step), boundaries, values
            )
            rate = rate() if callable(rate) else rate
            assert sweep.rate(step, 0.1, total) == pytest.approx(float(rate))


WITHOUT_TRAINING = "was saved for training=False alone"
NO_MODE = "has no training mode: fine-tuned as it is called to predict"
FROZEN = "its batch norm statistics stay as stored"
BATCH = (
    "takes batches of 4 only: fine-tuned with 4 images a step in place of 20"
)


@pytest.mark.parametrize(
    ("encoder", "options", "reason", "note"),
    [
        (None, {"modes": (False,)}, WITHOUT_TRAINING, None),
        (evaluation_modules.WithoutModes(), {"modes": ()}, None, NO_MODE),
        (evaluation_modules.FrozenStatistics(), {}, None, FROZEN),
        (None, {"size": 16, "batch": 4}, None, BATCH),
        (None, {}, None, None),
    ],
)
def test_unusual_modules_are_told(
    tmp_path, monkeypatch, encoder, options, reason, note
):
    path = evaluation_modules.save(tmp_path / "odd", encoder, **options)
    monkeypatch.setattr(offline_tfds, "load_task", lambda *unused: colours())

    def run():
        lines = []
        results = evaluate.evaluate(
            path,
            tmp_path / "out",
            tasks=["digits"],
            protocols=["finetune"],
            raw_pixels=False,
            image_size=16,
            steps=[5],
            batch_size=20,
            cache_dir=None,
            show=lines.append,
        )
        return results, "\n".join(lines)

    results, shown = run()
    if reason is not None:
        assert not results["rows"]
        assert reason in results["not_run"][0]["reason"] and reason in shown
        return
    for found, text in ((results, shown), run()):  # the second is kept
        notes = found["encoders"][0]["notes"]
        assert len(notes) == (note is not None)
        assert len(found["rows"]) == 1 and text.count("note:") == len(notes)
        if note is not None:
            assert note in notes[0] and note in text


def test_half_precision_weights_are_not_trained():
    weights = [tf.Variable(tf.zeros(2, tf.float16))]
    encoder = types.SimpleNamespace(
        path="half", variables=weights, trainable_variables=weights
    )
    with pytest.raises(Untrainable, match="half has float16"):
        FineTuner(encoder)


def test_budget_takes_the_largest_that_fits(module):
    speed = budget.Speed(forward=1e-3, training=3e-3, probe=1.0)
    costs = [budget.cost(r, [speed], 8, 5000) for r in budget.rungs(5000)]
    assert costs == sorted(costs, reverse=True)
    # By hand: 1,000 pool images and 5,000 tested forward, one probe.
    assert costs[4] == pytest.approx(8 * (6000 * 1e-3 + 1.0))
    for place, seconds in enumerate(costs):
        rung, text = budget.choose(seconds / 60 + 1e-9, [speed], 8, 5000, 5000)
        assert rung == budget.rungs(5000)[place] and "fits" in text
    rung, text = budget.choose(1e-6, [speed], 8, 5000, 5000)
    assert rung.protocols == ("knn",) and "least there is" in text
    frozen = budget.Speed(forward=1e-3, training=None, probe=1.0)
    rung, _ = budget.choose(1e6, [frozen], 8, 5000, 5000)
    assert rung.name == "frozen features"  # nothing can be trained
    measured = budget.measure(load_encoder(module), 16)
    assert measured.training > 0 and 0 < measured.forward < 1
    with pytest.raises(ValueError, match="above 0"):
        budget.choose(0, [speed], 8, 5000)


def test_budget_chooses_in_the_suite(tmp_path, monkeypatch, module):
    monkeypatch.setattr(offline_tfds, "load_task", lambda *unused: colours())
    lines = []
    results = evaluate.evaluate(
        module,
        tasks=["digits"],
        image_size=16,
        budget_minutes=1e-9,
        cache_dir=None,
        show=lines.append,
    )
    assert results["settings"]["protocols"] == ["knn"]
    assert "least there is" in results["budget"] and lines[0].startswith(
        "budget of"
    )
