"""Every kind of encoder is trained, resumed, exported and converted."""

import pathlib
import subprocess
import sys

import pytest

BENCHMARK = pathlib.Path(__file__).parents[2] / "benchmarks" / "encoders.py"
# Random depth and dropout differ from replica to replica.
RANDOM = {"applications:EfficientNetV2B0": ("replicas",)}


# Minutes for each: it traces and converts networks of up to 28 M weights.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet50v2",
        "efficientnet_lite0",
        "applications:MobileNetV3Small",
        "applications:EfficientNetV2B0",
        "applications:ConvNeXtTiny",
        "vit",
    ],
)
def test_an_encoder_goes_the_whole_way(name):
    if name == "vit":
        pytest.importorskip("keras_hub")
    done = subprocess.run(
        [sys.executable, BENCHMARK, name],
        capture_output=True,
        text=True,
        check=True,
    )
    head, _, row = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in done.stdout.strip().splitlines()
    )
    found = dict(zip(head[1:], row[1:], strict=True))
    wrong = {
        check: cell
        for check, cell in found.items()
        if cell != "yes" and check not in RANDOM.get(name, ())
    }
    assert len(found) == 11 and not wrong
