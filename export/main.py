"""vivi-export: the last checkpoint of a run -> files that load anywhere."""

import inspect

from absl import app, flags, logging

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of a vivi-pretrain run.", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder (SavedModel) to write.", required=True
)
_WEIGHTS_DTYPE = flags.DEFINE_enum(
    "weights_dtype",
    "float32",
    ["float32", "float16"],
    "How kernels are stored; float16 halves the size, for inference.",
)
_EMA = flags.DEFINE_bool(
    "ema", False, "Export the moving averages of the weights."
)


def restore(workdir, ema):
    """The encoder of a run and what is known about it.

    Args:
        workdir: folder of a vivi-pretrain run.
        ema: whether to take the moving averages of the weights.
    Returns: (encoder, metadata dict).
    Raises: ValueError when moving averages are asked for and none are kept.
    """
    from vivi_keras.training import build

    takes_ema = "ema" in inspect.signature(build.restore_encoder).parameters
    if not ema:
        return build.restore_encoder(workdir)
    if not takes_ema:
        raise ValueError(
            "expected a run that keeps moving averages (--ema), but training"
            " does not keep them"
        )
    return build.restore_encoder(workdir, ema=True)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"expected flags alone, got {argv[1:]}")
    from vivi_keras.export import export_encoder

    encoder, metadata = restore(_WORKDIR.value, _EMA.value)
    export_encoder(
        encoder,
        _OUTPUT.value,
        metadata=metadata,
        weights_dtype=_WEIGHTS_DTYPE.value,
    )
    logging.info("wrote %s", _OUTPUT.value)


def run():
    """The console script vivi-export."""
    app.run(main)


if __name__ == "__main__":
    run()
