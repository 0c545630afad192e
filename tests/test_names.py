"""Old names of modules, and names by which Keras finds saved classes."""

import importlib
import subprocess
import sys
import warnings

import pytest

import vivi_keras

# What the docs showed under the old names.
SHOWN = {
    "vivi_keras.callbacks": ("SaveCheckpoints", "StopAtSigterm"),
    "vivi_keras.checkpoints": ("CheckpointManager",),
    "vivi_keras.data.sources": ("open_images",),
    "vivi_keras.hub": ("HubEncoder", "load"),
    "vivi_keras.strategies": ("make_strategy", "WAIT_SECONDS"),
    "vivi_keras.training.probes": ("Probe", "ProbeData"),
    "vivi_keras.video.demo_corpus": ("render_corpus",),
    "vivi_keras.video.prepare": ("prepare",),
    "vivi_keras.watching": ("MeasureSpeed", "Profile", "WriteProjector"),
}


def run(script):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("old", vivi_keras._MOVED)
def test_an_old_name_warns_and_names_the_new(old):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match="is now in vivi_keras") as told:
        code = compile(f"import {old} as module", __file__, "exec")
        exec(code, space := {})
    module = space["module"]
    assert told[0].filename == __file__
    for name in SHOWN.get(old, ()):
        places = [
            importlib.import_module(f"vivi_keras.{place}")
            for place in vivi_keras._MOVED[old]
        ]
        assert any(
            getattr(module, name) is getattr(place, name, None)
            for place in places
        )
    with pytest.raises(AttributeError, match=f"'{old}' has no attribute 'no'"):
        _ = module.no


@pytest.mark.parametrize("name", ["strategies", "hub", "watching"])
def test_an_old_name_as_an_attribute(name):
    sys.modules.pop(f"vivi_keras.{name}", None)
    vars(vivi_keras).pop(name, None)
    with pytest.warns(DeprecationWarning) as told:
        getattr(vivi_keras, name)
    assert len(told) == 1 and told[0].filename == __file__


def test_prepare_of_video_warns():
    from vivi_keras import prepare, video

    vars(video).pop("prepare", None)  # another test imported the old module
    with pytest.warns(DeprecationWarning, match="vivi_keras.prepare.prepare"):
        assert video.prepare is prepare.prepare


def test_new_names_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for places in vivi_keras._MOVED.values():
            for place in places:
                importlib.import_module(f"vivi_keras.{place}")


REGISTERED = """
import sys
import {first}
if "{first}" == "vivi_keras":
    assert not {{"keras", "tensorflow"}} & set(sys.modules)
import {second}
import keras
for name in ("HubEncoder", "Objective", "ShotExemplar", "MLP", "LARS"):
    assert keras.saving.get_registered_object("vivi_keras>" + name), name
"""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("vivi_keras", "keras"),
        ("keras", "vivi_keras"),
        ("vivi_keras.levels.exemplar", "keras"),
        ("vivi_keras.losses.triplet", "keras"),
        ("vivi_keras.models.heads", "keras"),
        ("vivi_keras.trainer.model", "keras"),
        ("vivi_keras.data", "keras"),
    ],
)
def test_keras_finds_our_classes_whatever_comes_first(first, second):
    run(REGISTERED.format(first=first, second=second))


SAVE = """
import keras
import numpy as np
import vivi_keras

model = keras.Sequential(
    [vivi_keras.load("vivi-r14w025-film/1"), keras.layers.Dense(2)]
)
images = np.linspace(0, 1, 2 * 32 * 40 * 3, dtype="float32")
images = images.reshape(2, 32, 40, 3)
np.save({folder!r} + "/expected.npy", model(images))
model.save({folder!r} + "/mine.keras")
"""
LOAD = """
import keras
import numpy as np
import vivi_keras

model = keras.saving.load_model({folder!r} + "/mine.keras")
images = np.linspace(0, 1, 2 * 32 * 40 * 3, dtype="float32")
np.testing.assert_allclose(
    model(images.reshape(2, 32, 40, 3)),
    np.load({folder!r} + "/expected.npy"),
    atol=1e-5,
)
"""


def test_a_saved_model_loads_in_another_process(tmp_path):
    run(SAVE.format(folder=str(tmp_path)))
    run(LOAD.format(folder=str(tmp_path)))
