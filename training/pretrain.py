"""vivi-pretrain: trains an encoder as a named config says.

Example:
  vivi-pretrain --config=vivi_ex4_demo --config.data.dataset=data --workdir=run
"""

from absl import app, flags
from ml_collections import config_flags

from vivi_keras import commands
from vivi_keras.runs import run as run_lib
from vivi_keras.runs.run import Preempted
from vivi_keras.training.configs import flags as flags_lib
from vivi_keras.training.configs import rows

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Name of a row (--list prints them) or path of a Python file with"
    " get_config(); --config.KEY=VALUE changes a value.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_LIST = flags.DEFINE_bool("list", False, "Print the named rows and exit.")
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one", "mirrored", "multiworker", "tpu"],
    "Devices to train on; auto: a TPU, else all GPUs, else one device.",
)
_ALLOW_NEW_DATA = flags.DEFINE_bool(
    "allow_new_data", False, "Go on though the data set has changed."
)
_SKIP_NONFINITE = flags.DEFINE_bool(
    "skip_nonfinite", False, "Leave out steps whose loss is not finite."
)
_XLA = flags.DEFINE_enum(
    "xla", "auto", ["auto", "on", "off"], "Compile the step; auto: on one GPU."
)
_STEPS_PER_EXECUTION = flags.DEFINE_integer(
    "steps_per_execution", 1, "Steps between two looks of the callbacks.", 1
)
_PREFETCH = flags.DEFINE_integer(
    "prefetch", 2, "Batches that wait ready for the step.", 0
)
_PROBE = flags.DEFINE_string(
    "probe",
    None,
    "Score the encoder on a labelled set while it trains: digits,"
    " fashion_mnist, a TFDS name or a folder of class folders.",
)
_PROBE_EVERY_STEPS = flags.DEFINE_integer(
    "probe_every_steps",
    None,
    "Steps between two scores; by default train.checkpoint_every_steps.",
    1,
)
_PROFILE_STEPS = flags.DEFINE_list(
    "profile_steps", None, "START,STOP: steps of this run to profile."
)


def main(argv):
    if _LIST.value:
        for name, (text, _) in rows.ROWS.items():
            print(f"{name:18} {text}")
        print("NAME_demo is the same at a scale for two CPU cores.")
        return
    if len(argv) > 1:
        raise app.UsageError(f"Expected only flags; got {argv[1:]}.")
    for name, value in (("config", _CONFIG.value), ("workdir", _WORKDIR.value)):
        if not value:
            raise app.UsageError(f"--{name} is missing.")
    from vivi_keras.runs import batches as batches_lib
    from vivi_keras.runs import config_checks

    try:
        config_checks.check_numbers(_CONFIG.value)
        if batches_lib.needs_videos(_CONFIG.value) and not (
            _CONFIG.value.data.dataset
        ):
            raise app.UsageError("--config.data.dataset is missing.")
        run_lib.pretrain(
            _CONFIG.value,
            _WORKDIR.value,
            strategy=_STRATEGY.value,
            allow_new_data=_ALLOW_NEW_DATA.value,
            skip_nonfinite=_SKIP_NONFINITE.value,
            xla=_XLA.value,
            steps_per_execution=_STEPS_PER_EXECUTION.value,
            prefetch=_PREFETCH.value,
            probe=_PROBE.value,
            probe_every_steps=_PROBE_EVERY_STEPS.value,
            profile_steps=_two_steps(_PROFILE_STEPS.value),
        )
        return
    except Preempted as error:
        said, status = str(error), run_lib.PREEMPTED_STATUS
    except KeyboardInterrupt:
        said = "stopped; the same command goes on from the last checkpoint"
        status = 130
    commands.end("vivi-pretrain", said, status)


def _two_steps(words):
    """(start, stop) of the flag --profile_steps."""
    if words is None:
        return None
    try:
        start, stop = map(int, words)
    except ValueError:
        raise ValueError(
            "--profile_steps must be two step numbers, such as 10,20."
            f" Got: {','.join(words)}"
        ) from None
    return start, stop


def run():
    """The console script vivi-pretrain."""
    commands.run("vivi-pretrain", main, flags_lib.prepare_argv)


if __name__ == "__main__":
    run()
