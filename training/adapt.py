"""vivi-adapt: adapts an encoder to your videos, if your labels show it helps.

Example:
  vivi-adapt --encoder=efficientnet_lite0 --dataset=data --labels=labels.csv \
    --try=frame,shot --output=adapted
"""

from absl import app, flags

from vivi_keras import checks, commands
from vivi_keras.runs import run as run_lib

_ENCODER = flags.DEFINE_string(
    "encoder",
    "efficientnet_lite0",
    "Encoder to start from; vivi-pretrain --list_encoders lists them.",
)
_DATASET = flags.DEFINE_string(
    "dataset", None, "Folder that vivi-prepare wrote.", allow_override=True
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "CSV with the columns path, start_seconds, stop_seconds, label; or a folder"
    " with a folder of images for each class.",
    allow_override=True,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the run.", allow_override=True
)
_TRY = flags.DEFINE_list(
    "try",
    ["frame"],
    "Levels: frame, shot, frame+shot, vivi. Short runs compare several levels.",
)
_RATES = flags.DEFINE_list("rates", ["1e-3"], "Learning rates to compare.")
_STEPS = flags.DEFINE_integer("steps", None, "Steps of the run.", 1)
_SIZE = flags.DEFINE_integer("image_size", None, "Image size in pixels.", 32)
_SCALE = flags.DEFINE_enum(
    "scale", "demo", ["demo", "paper"], "Demo is for two CPU cores."
)


def main(argv):
    """Adapts an encoder as the flags say."""
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    for flag in (_DATASET, _LABELS, _OUTPUT):
        if not flag.value:
            raise app.UsageError(f"--{flag.name} must be given.")
    try:
        rates = [float(rate) for rate in _RATES.value]
    except ValueError:
        raise app.UsageError(
            f"--rates must be numbers. Got: {','.join(_RATES.value)}"
        ) from None
    from vivi_keras.training import pipeline

    for level in _TRY.value:
        checks.check_choice("--try", level, pipeline.LEVELS)
    settings = {}
    if _SIZE.value is not None:
        settings["data.image_size"] = _SIZE.value
    try:
        found = pipeline.adapt(
            _ENCODER.value,
            _DATASET.value,
            _LABELS.value,
            _OUTPUT.value,
            levels=_TRY.value,
            rates=rates,
            steps=_STEPS.value,
            scale="_demo" if _SCALE.value == "demo" else "",
            settings=settings,
        )
    except run_lib.Preempted as error:
        commands.end("vivi-adapt", str(error), run_lib.PREEMPTED_STATUS)
    print(
        f"The encoder: {found.module}\n"
        f"Report with the verdict: {found.module.parent / 'report.html'}"
    )


def run():
    """The console script vivi-adapt."""
    commands.run("vivi-adapt", main)


if __name__ == "__main__":
    run()
