"""The rows of the paper's table that train on video."""

import difflib

import ml_collections

from vivi_keras.training.configs import base

EXEMPLAR = {  # [G] but for the levels it is used at
    "loss": "triplet",
    "margin": 0.5,
    "temperature": 0.1,  # of the losses that have one  [O]
    "head_units": 1000,
    "negatives": "global",
    "same_video_negatives": True,  # [R]
}
INFO_NCE = {
    "weight": 0.04,  # lambda  [R]
    "predictor": "lstm",  # [R]
    "critic": "mlp",  # [R]
    "units": 256,  # [R]
    "pool": "mean",  # [R]
    "negatives": "global",  # [R]
}


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
        # Lambda is known for Ex + InfoNCE alone.  [O]

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

# name -> (what it is, what it changes in the base config)
ROWS = {
    "ex_yt_frame": ("exemplar over 8 copies of a frame", _frames),
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
}


def names() -> list[str]:
    """Every config name: the rows at paper scale and at demo scale."""
    return [name + scale for name in ROWS for scale in ("", "_demo")]


def get_config(name: str) -> ml_collections.ConfigDict:
    """The config of a row.

    Args:
        name: a key of `ROWS`, with "_demo" appended for the laptop's scale.
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
    if row != name:
        _shrink(config.objective)
    return config


def _shrink(objective):
    """What a few thousand small batches learn from; all values [O].

    With the paper's triplet and lambda the demo's encoder gained less over
    an untrained one, and InfoNCE stayed near chance.
    """
    for level in ("frame_exemplar", "shot_exemplar"):
        if level in objective:
            objective[level].loss = "nt_xent"
    if "video_info_nce" in objective:
        objective.video_info_nce.weight = 1.0
