"""Rows that adapt a pretrained encoder.

All values are [O], from trials with EfficientNet-Lite0 (docs/adapting.md).
"""

from vivi_keras.training.configs.base import EXEMPLAR, INFO_NCE

_NT_XENT = {**EXEMPLAR, "loss": "nt_xent", "temperature": 0.1}
STEPS, DEMO_STEPS = 2000, 200
IMAGES = 512  # per step


def _adapted(num_shots, frames_per_shot, copies, *levels):
    """A row with as many images per step as the other rows here."""

    def change(config):
        is_demo = config.name.endswith("_demo")
        data = config.data
        data.update(
            num_shots=num_shots,
            frames_per_shot=frames_per_shot,
            copies=copies,
            batch_size=IMAGES // (num_shots * frames_per_shot * copies),
            image_size=64 if is_demo else 224,
            crop_area=(0.3, 1.0),
            colour_strength=0.25,
            min_gap_seconds=0.25,
            max_gap_seconds=1.0,
        )
        for level in levels:
            if level == "video_info_nce":
                config.objective[level] = {**INFO_NCE, "weight": 1.0}
            else:
                config.objective[level] = {**_NT_XENT, "weight": 1.0}
        config.model.encoder = "efficientnet_lite0"
        config.adapt.start_shares = (0.5,)
        config.optimizer.update(name="adamw", weight_decay=1e-4)
        config.schedule.update(name="cosine", learning_rate=1e-3, boundaries=())
        set_steps(config, DEMO_STEPS if is_demo else STEPS)

    return change


def set_steps(config, steps) -> None:
    """Sets the steps of a run, and the settings in proportion to them."""
    config.train.steps = steps
    config.adapt.warmup_head_steps = steps // 10
    config.schedule.warmup_steps = steps // 20
    config.train.checkpoint_every_steps = max(1, min(250, steps // 4))
    # At least four values are logged, so that they make a curve.
    every = min(config.train.log_every_steps, steps // 4)
    config.train.log_every_steps = max(1, every)


ROWS = {
    "adapt_frame": (
        "pretrained, then exemplar over copies of a frame",
        _adapted(4, 1, 2, "frame_exemplar"),
    ),
    "adapt_shot": (
        "pretrained, then exemplar over the frames of a shot",
        _adapted(4, 2, 1, "shot_exemplar"),
    ),
    "adapt_frame_shot": (
        "pretrained, then both kinds of exemplar",
        _adapted(4, 2, 2, "frame_exemplar", "shot_exemplar"),
    ),
    "adapt_vivi": (
        "pretrained, then shots + InfoNCE over 4 shots (LSTM)",
        _adapted(4, 2, 1, "shot_exemplar", "video_info_nce"),
    ),
}
