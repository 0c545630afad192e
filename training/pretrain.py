"""vivi-pretrain: trains an encoder with a named config.

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
    sys_argv=flags_lib.ARGV,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_LIST = flags.DEFINE_bool("list", False, "Print the named rows and exit.")
_LIST_ENCODERS = flags.DEFINE_bool(
    "list_encoders", False, "Print the encoders by name and exit."
)
_PRINT_CONFIG = flags.DEFINE_bool(
    "print_config", False, "Print the whole config as JSON and exit."
)
_SERVE_DATA = flags.DEFINE_string(
    "serve_data",
    None,
    "HOST:PORT: load batches for runs with --data_service=HOST:PORT instead of"
    " training.",
)
_OPTIONS = commands.define_flags(run_lib.Options)


def main(argv):
    if _LIST.value:
        _print_rows()
        return
    if _LIST_ENCODERS.value:
        print(encoder_table())
        return
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    if _SERVE_DATA.value:
        from vivi_keras.runs import data_service

        data_service.serve(_SERVE_DATA.value)
    if _PRINT_CONFIG.value and _CONFIG.value:
        print(_CONFIG.value.to_json(indent=2))
        return
    for name, value in (("config", _CONFIG.value), ("workdir", _WORKDIR.value)):
        if not value:
            raise app.UsageError(f"--{name} must be given.")
    from vivi_keras.runs import batches as batches_lib
    from vivi_keras.runs import config_checks

    try:
        config_checks.check_numbers(_CONFIG.value)
        if batches_lib.needs_videos(_CONFIG.value) and not (
            _CONFIG.value.data.dataset
        ):
            raise app.UsageError("--config.data.dataset must be given.")
        options = {option.name: option.value for option in _OPTIONS}
        model = run_lib.pretrain(_CONFIG.value, _WORKDIR.value, **options)
        strategy = getattr(model, "distribute_strategy", None)
        if options["keep_best"] and run_lib.is_chief(strategy):
            _judge(_WORKDIR.value, options["probe"])
        return
    except Preempted as error:
        said, status = str(error), run_lib.PREEMPTED_STATUS
    except KeyboardInterrupt:
        said = "stopped; the same command goes on from the last checkpoint"
        status = 130
    commands.end("vivi-pretrain", said, status)


def _judge(workdir, labels):
    """Prints the verdict on a run that started from pretrained weights."""
    import keras

    from vivi_keras.runs import workdir as workdir_lib

    if workdir_lib.read_start(workdir)["about"]["weights"] == "random":
        return  # there is no start to compare with
    if keras.backend.backend() != "tensorflow":
        print(
            "No verdict: it needs TensorFlow. The same command with"
            " KERAS_BACKEND=tensorflow trains no further and judges the run."
        )
        return
    # Imported only here: it needs PyAV, which training alone does not.
    from vivi_keras.training import pipeline

    pipeline.judge_run(workdir, labels)
    print(f"Report with the verdict: {workdir}/verdict/report.html")


def _print_rows():
    """Prints each row with its images per step at both scales."""
    from vivi_keras.runs.batches import images_per_step

    print(f"{'images per step':>32}\n{'row':18} {'':>6} {'_demo':>6}")
    for name, (text, _) in rows.ROWS.items():
        paper, demo = (
            images_per_step(rows.get_config(name + scale))
            for scale in ("", "_demo")
        )
        print(f"{name:18} {paper:6,} {demo:6,}  {text}")
    print("NAME_demo is the same at a scale for two CPU cores.")


def encoder_table() -> str:
    """The encoders that config.model.encoder can name, one per line."""
    from vivi_keras.models import encoders

    rows = [("encoder", "input", "features", "weights", "source", "licence")]
    for entry in encoders.list_encoders():
        rows.append(
            (
                entry.name,
                f"{entry.image_size} px",
                str(entry.num_features),
                f"{entry.num_parameters / 1e6:.1f} M",
                entry.source,
                entry.licence,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *_OTHER_ENCODERS])


_OTHER_ENCODERS = (
    "Input is the size of the images that the published weights were trained"
    " on; other sizes work.",
    "Also: keras_hub:PRESET (a name or a folder; pip install"
    " 'vivi-keras[hub]'), module:PATH_OR_NAME (a reusable SavedModel),"
    " run:WORKDIR (the encoder of another run).",
)


def run():
    """The console script vivi-pretrain."""
    commands.run("vivi-pretrain", main, flags_lib.prepare_argv)


if __name__ == "__main__":
    run()
