"""All rows of the paper's table; the video rows are defined here."""

import difflib

import ml_collections

from vivi_keras.training.configs import adapt_rows, base, labelled_rows
from vivi_keras.training.configs.base import EXEMPLAR, INFO_NCE


def _exemplar(level, num_shots, **levels):
    def change(config):
        config.data.num_shots = num_shots
        config.objective[level] = {"weight": 1.0, **EXEMPLAR}
        for name, arguments in levels.items():
            config.objective[name] = arguments

    return change


def _frames(config):
    """Exemplar over augmented copies of single frames."""
    _exemplar("frame_exemplar", 1)(config)
    config.data.frames_per_shot = 1
    config.data.copies = 8  # [G]


def _rotation(num_shots, predictor):
    def change(config):
        config.data.num_shots = num_shots
        config.data.views = "rotation"
        config.objective.rotation = {"weight": 1.0}
        config.objective.video_info_nce = {**INFO_NCE, "predictor": predictor}
        # The paper gives lambda only for Ex + InfoNCE.  [O]

    return change


def _big(change):
    def bigger(config):
        change(config)
        config.model.width = 3 * config.model.width  # [P]

    return bigger


_EX4 = _exemplar("shot_exemplar", 4, video_info_nce=INFO_NCE)
_EX2 = _exemplar(
    "shot_exemplar", 2, video_info_nce={**INFO_NCE, "predictor": "mlp"}
)
_ORDER = _exemplar(
    "shot_exemplar", 2, shot_order={"weight": 1.0, "units": 256, "pool": "mean"}
)

# name -> (description, function that changes the base config)
ROWS = {
    "ex_yt_frame": ("exemplar over copies of a frame", _frames),
    "ex_yt_shot": (
        "exemplar over the frames of a shot",
        _exemplar("shot_exemplar", 1),
    ),
    "vivi_ex2_order": ("exemplar + order of two shots", _ORDER),
    "vivi_ex2": ("exemplar + InfoNCE over 2 shots (MLP)", _EX2),
    "vivi_ex4": ("exemplar + InfoNCE over 4 shots (LSTM)", _EX4),
    "vivi_ex4_big": ("vivi_ex4 with a 3 times wider encoder", _big(_EX4)),
    "vivi_rot2": ("rotation + InfoNCE over 2 shots", _rotation(2, "mlp")),
    "vivi_rot4": ("rotation + InfoNCE over 4 shots", _rotation(4, "lstm")),
    **labelled_rows.ROWS,
    "vivi_ex4_co10": (
        "vivi_ex4 + a tenth of the labels",
        labelled_rows.co_trained(_EX4, 0.1),
    ),
    "vivi_ex4_co100": (
        "vivi_ex4 + all labels",
        labelled_rows.co_trained(_EX4, 1.0),
    ),
    "vivi_ex4_co100_big": (
        "vivi_ex4_co100 with a 3 times wider encoder",
        _big(labelled_rows.co_trained(_EX4, 1.0)),
    ),
    **adapt_rows.ROWS,
}


def names() -> list[str]:
    """All config names: the rows at paper scale and at demo scale."""
    return [name + scale for name in ROWS for scale in ("", "_demo")]


def get_config(name: str) -> ml_collections.ConfigDict:
    """The config of a row.

    Args:
        name: a key of `ROWS`, with "_demo" appended for demo scale.
    Raises: ValueError: unknown name.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"Unknown config {name!r}.{hint} Known: {', '.join(names())}"
        )
    row = name.removesuffix("_demo")
    config = base.demo_config() if row != name else base.paper_config()
    config.name = name
    ROWS[row][1](config)
    if row != name and row not in adapt_rows.ROWS:
        _shrink(config)
    return config


def _shrink(config):
    """Adapts a row to a few thousand small batches; all values [O].

    With the paper's triplet and lambda, the demo's encoder improved less over
    an untrained one, and InfoNCE stayed near chance.
    """
    demo, objective = base.demo_config(), config.objective
    for level in ("frame_exemplar", "shot_exemplar"):
        if level in objective:
            objective[level].loss = "nt_xent"
    if "video_info_nce" in objective:
        objective.video_info_nce.weight = 1.0
    config.train.steps = min(config.train.steps, demo.train.steps)
    config.schedule.update(demo.schedule)
    config.data.copies = min(config.data.copies, 2)
    images = config.data.images
    images.copies = min(images.copies, 2)
    if images.batch_size:
        images.batch_size = 64 // images.copies
        images.unlabelled_batch_size = min(
            images.unlabelled_batch_size, images.batch_size
        )
