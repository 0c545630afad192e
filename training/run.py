"""vivi run: from an archive of videos to an encoder, a verdict and an index.

Example:
  vivi run --videos=films --labels=labels.csv --output=out --budget=30m
"""

from absl import app, flags

from vivi_keras import commands
from vivi_keras.runs import run as run_lib

_VIDEOS = flags.DEFINE_string(
    "videos",
    None,
    "Folder of videos, or a text file with a path on each line.",
    allow_override=True,
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "CSV with the columns path, start_seconds, stop_seconds, label; or a folder"
    " with a folder of images for each class. Without labels there is no"
    " verdict.",
    allow_override=True,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for all results.", allow_override=True
)
_BUDGET = flags.DEFINE_string(
    "budget", "30m", "Time for the whole run, such as 90s, 30m or 2h."
)
_STEPS = flags.DEFINE_integer(
    "steps",
    None,
    "Number of training steps, in place of --budget: the results then do not"
    " depend on how fast the machine is.",
    1,
)
_ENCODER = flags.DEFINE_string(
    "encoder",
    "auto",
    "Encoder to start from; vivi-pretrain --list_encoders lists them.",
)
_LEVELS = flags.DEFINE_list(
    "levels",
    ["vivi", "frame"],
    "Levels to try; the labels choose the best one.",
)
_SIZE = flags.DEFINE_integer(
    "image_size", None, "Image size for training, pixels per side.", 32
)
_WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "Processes that prepare videos; default: one per core.",
    1,
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan and stop.")


def main(argv):
    """Does what the flags say."""
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    for flag in (_VIDEOS, _OUTPUT):
        if not flag.value:
            raise app.UsageError(f"--{flag.name} must be given.")
    from vivi_keras.runs import plan
    from vivi_keras.training import pipeline

    settings = {}
    if _SIZE.value is not None:
        settings["data.image_size"] = _SIZE.value
    said = None
    try:
        found = pipeline.run(
            _VIDEOS.value,
            _LABELS.value,
            output=_OUTPUT.value,
            budget_minutes=plan.parse_budget(_BUDGET.value) / 60,
            steps=_STEPS.value,
            encoder=_ENCODER.value,
            levels=_LEVELS.value,
            workers=_WORKERS.value,
            dry_run=_DRY_RUN.value,
            settings=settings,
        )
    except run_lib.Preempted as error:
        said = str(error), run_lib.PREEMPTED_STATUS
    except KeyboardInterrupt:
        said = "stopped; run it again to go on", 130
    if said is not None:
        commands.end("vivi run", *said)
    if found["page"] is not None:
        print(f"The encoder: {found['module']}\nOpen {found['page']}")


def run():
    """What `vivi run` does."""
    commands.run("vivi run", main)


if __name__ == "__main__":
    run()
