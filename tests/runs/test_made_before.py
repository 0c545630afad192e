"""What was made before the folders of the package changed still works.

made_before.tar.gz holds, made by the commit before: `data` of vivi-prepare,
`work` of vivi-pretrain with the flags below, stopped at step 2, and a Keras
model with its outputs.
"""

import json
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import keras
import pytest
from packaging import version

MADE = pathlib.Path(__file__).with_name("made_before.tar.gz")
BIN = pathlib.Path(sys.executable).parent
FLAGS = (
    "--config=vivi_ex4_demo",
    "--config.data.dataset=data",
    "--config.data.image_size=16",
    "--config.data.batch_size=4",
    "--config.data.num_shots=3",
    "--config.model.width=0.0625",
    "--config.model.units=(1,1,1,1)",
    "--config.objective.shot_exemplar.head_units=16",
    "--config.objective.video_info_nce.units=8",
    "--config.schedule.warmup_steps=1",
    "--config.train.log_every_steps=2",
    "--config.train.checkpoint_every_steps=2",
    "--config.train.steps=4",
)
LOAD = """
import keras
import numpy as np

import vivi_keras

model = keras.saving.load_model("encoder.keras")
images = np.linspace(0, 1, 2 * 32 * 40 * 3, dtype="float32")
found = model(images.reshape(2, 32, 40, 3))
np.testing.assert_allclose(found, np.load("expected.npy"), rtol=0, atol=1e-5)
print("equal")
"""


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(MADE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def run(folder, *command):
    done = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_goes_on_and_is_exported(folder):
    printed = run(
        folder,
        BIN / "vivi-pretrain",
        *FLAGS,
        "--workdir=work",
    )
    assert "Going on from step 2 of 4." in printed
    run(folder, BIN / "vivi-export", "--workdir=work", "--output=module")
    assert (folder / "module" / "saved_model.pb").is_file()


def test_a_keras_model_loads_in_a_new_process(folder):
    with zipfile.ZipFile(folder / "encoder.keras") as content:
        saved = json.loads(content.read("metadata.json"))["keras_version"]
    if version.Version(keras.__version__) < version.Version(saved):
        pytest.skip(f"saved by Keras {saved}, which older ones cannot read")
    assert "equal" in run(folder, sys.executable, "-c", LOAD)
