"""Each kind of encoder trains, resumes, exports, converts and is scored."""

import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks/studies/encoders.py"
NAMES = (
    "resnet50v2",
    "efficientnet_lite0",
    "applications:MobileNetV3Small",
    "applications:EfficientNetV2B0",
    "vit",
)
PAGE = SCRIPT.parents[2] / "docs/adapting.md"


@pytest.mark.slow  # trains a network in eight ways, exports and converts it
@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_does_what_the_table_says(name):
    if name == "vit":
        pytest.importorskip("keras_hub")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), name],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    head, _, row = done.stdout.strip().splitlines()[-3:]
    assert head in PAGE.read_text(encoding="utf-8")
    assert row in PAGE.read_text(encoding="utf-8"), row
