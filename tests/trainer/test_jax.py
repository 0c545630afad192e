"""A run begun on TensorFlow goes on under JAX, with the same numbers."""

import json
import os
import shutil
import subprocess
import sys

import data_helpers
import numpy as np
import pytest

pytest.importorskip("jax")

SCRIPT = """
import json, sys
import keras
import vivi_keras
from vivi_keras import data
from vivi_keras.objective import make_level
from vivi_keras.runs.checkpoints import CheckpointManager

dataset, workdir, steps, options = sys.argv[1:]
model = vivi_keras.ViviModel(
    vivi_keras.ResNet50V2(width=0.125, units=(1, 1, 1, 1)),
    vivi_keras.Objective(
        [
            make_level("shot_exemplar", loss="multi_positive_nce"),
            make_level("video_info_nce"),
        ]
    ),
    seed=3,
    **json.loads(options),
)
model.compile(keras.optimizers.SGD(0.01, momentum=0.9, clipnorm=1.0))

def batches(first_step):
    return data.video_batches(
        dataset, 8, 2, 2, 32, seed=5, copies=2, first_step=first_step
    )

model.build_from(batches(0).element_spec)
manager = CheckpointManager(model, workdir)
manager.restore()
history = model.fit(
    batches(model.steps_done), steps_per_epoch=1, epochs=int(steps), verbose=0
)
manager.save(wait=True)
print(json.dumps(history.history))
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Videos of noise: where all frames are alike, batch norm divides rounding
    errors by a small deviation, and a few steps make them large."""
    random, examples = np.random.default_rng(0), []
    for video in range(20):
        example = data_helpers.video_example(video, [3, 2 + video % 2])
        example["frames"] = [
            random.integers(0, 256, (48, 80, 3), dtype=np.uint8)
            for _ in example["frames"]
        ]
        examples.append(example)
    return data_helpers.write_dataset(
        tmp_path_factory.mktemp("videos"), examples
    )


def train(backend, dataset, workdir, steps, **options):
    done = subprocess.run(
        [
            *(sys.executable, "-c", SCRIPT, dataset, workdir),
            *(str(steps), json.dumps(options)),
        ],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def last(workdir, steps):
    path = workdir / "checkpoints" / f"step_{steps:08d}" / "state.npz"
    return dict(np.load(path))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"micro_batches": 2, "skip_nonfinite": True, "average_decay": 0.9},
    ],
)
def test_a_run_goes_on_under_jax(options, dataset, tmp_path):
    """Not more than two steps: in TensorFlow alone, a change of the weights by
    a ten-millionth changes the loss of the fourth by a thousandth."""
    train("tensorflow", dataset, tmp_path / "a", 2, **options)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    expected = train("tensorflow", dataset, tmp_path / "a", 2, **options)
    found = train("jax", dataset, tmp_path / "b", 2, **options)
    assert found.keys() == expected.keys()
    for name in expected:
        # Ranks and distances are more sensitive to rounding than losses.
        error = 1e-4 if name.endswith("loss") else 1e-3
        np.testing.assert_allclose(
            found[name], expected[name], rtol=error, atol=error, err_msg=name
        )
    values, others = last(tmp_path / "b", 4), last(tmp_path / "a", 4)
    assert values.keys() == others.keys()
    for name in others:
        np.testing.assert_allclose(
            values[name], others[name], rtol=1e-3, atol=1e-4, err_msg=name
        )
