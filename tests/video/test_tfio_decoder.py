"""The tensorflow-io decoder: a clear error, and the same frames as PyAV."""

import json
import os
import subprocess

import numpy as np
import pytest
from film_helpers import write

from vivi_keras import prepare
from vivi_keras.video import decode

PYTHON = os.environ.get("VIVI_TFIO_PYTHON")
CODE = """
import json, sys
import numpy as np
from vivi_keras.video import tfio_decoder
tfio_decoder.check()
with tfio_decoder.TfioVideo(sys.argv[1]) as video:
    frames = list(video.frames())
np.save(sys.argv[2], np.stack([f.picture.to_ndarray() for f in frames]))
print(json.dumps([f.time_seconds for f in frames]))
"""


def test_what_is_missing_is_named(tmp_path):
    import tensorflow as tf

    if tf.__version__.startswith("2.16."):
        pytest.skip("TensorFlow is the one that tensorflow-io fits")
    write(tmp_path / "x.mp4")
    with pytest.raises(ValueError, match="needs TensorFlow 2.16.*Got: "):
        prepare.prepare(tmp_path / "x.mp4", tmp_path / "out", decoder="tfio")


# Needs an environment of its own, with TensorFlow 2.16 and FFmpeg 4.
@pytest.mark.slow
@pytest.mark.skipif(
    PYTHON is None,
    reason="VIVI_TFIO_PYTHON names no Python with vivi-keras[tfio]",
)
def test_same_frames_as_pyav(tmp_path):
    path = write(tmp_path / "x.mp4", options={"crf": "12"})
    output = subprocess.run(
        [PYTHON, "-c", CODE, str(path), str(tmp_path / "frames.npy")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    times = json.loads(output.splitlines()[-1])
    theirs = np.load(tmp_path / "frames.npy").astype(int)
    with decode.Video(str(path)) as opened:
        frames = list(opened.frames())
    np.testing.assert_allclose(
        times, [f.time_seconds for f in frames], atol=1e-6
    )
    ours = np.stack([f.picture.to_ndarray(format="rgb24") for f in frames])
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 3
