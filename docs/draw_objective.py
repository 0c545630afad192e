"""Draws the objective of a named config: python docs/draw_objective.py."""

import argparse
import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from vivi_keras.training.configs import get_config  # noqa: E402

SHOTS = ("#c8dcf0", "#cfe8cf", "#f6e0b5", "#ecd0e4")
# What a level holds together, by its kind.
MEANING = {
    "frame_exemplar": "copies of one frame agree",
    "rotation": "tell each frame's quarter turn",
    "shot_exemplar": "frames of one shot agree,\nother shots do not",
    "shot_order": "tell whether two\nshots were swapped",
    "video_info_nce": "earlier shots pick out\nthe later ones",
    "supervised": "classes of labelled images",
}


def box(axes, x, y, width, height, text, colour):
    axes.add_patch(
        pyplot.Rectangle((x, y), width, height, fc=colour, ec="#404040")
    )
    axes.text(
        x + width / 2, y + height / 2, text, ha="center", va="center", size=9
    )


def arrow(axes, start, stop):
    axes.annotate("", stop, start, arrowprops={"arrowstyle": "->"})


def draw_clip(axes, data, x, y, width):
    """One video: shots of frames, each frame with its copies."""
    shot_width = width / data.num_shots
    for shot in range(data.num_shots):
        left = x + shot * shot_width
        frame_width = (shot_width - 0.2) / data.frames_per_shot
        for frame in range(data.frames_per_shot):
            for copy in reversed(range(min(data.copies, 3))):
                axes.add_patch(
                    pyplot.Rectangle(
                        (
                            left + frame * frame_width + 0.06 * copy,
                            y + 0.06 * copy,
                        ),
                        frame_width - 0.15,
                        0.7,
                        fc=SHOTS[shot % len(SHOTS)],
                        ec="#404040",
                    )
                )
        axes.text(
            left + (shot_width - 0.2) / 2,
            y - 0.3,
            f"shot {shot + 1}",
            ha="center",
            size=8,
        )


def level_text(kind, given):
    settings = [f"{name} = {value}" for name, value in given.items()]
    return "\n".join([kind, MEANING.get(kind, ""), "", *settings])


def draw(config, output):
    levels = {
        kind: level_text(kind, given)
        for kind, given in config.objective.items()
    }
    width = max(8.0, 3.4 * len(levels))
    height = 0.3 + 0.25 * max(1 + x.count("\n") for x in levels.values())
    figure, axes = pyplot.subplots(figsize=(width, height + 3.6))
    axes.set_xlim(0, width)
    axes.set_ylim(-0.3, height + 3.7)
    axes.axis("off")
    data, model = config.data, config.model
    draw_clip(axes, data, 0.5, 0.3, width - 1)
    arrow(axes, (width / 2, 1.25), (width / 2, 1.75))
    box(
        axes,
        0.5,
        1.75,
        width - 1,
        0.6,
        f"encoder f: ResNet v2, width {model.width:g}, units"
        f" {'/'.join(str(n) for n in model.units)};"
        f" B={data.batch_size} S={data.num_shots}"
        f" F={data.frames_per_shot} C={data.copies},"
        f" {data.image_size} px",
        "#e8e8e8",
    )
    step = (width - 1) / len(levels)
    for place, text in enumerate(levels.values()):
        left = 0.5 + place * step
        centre = left + (step - 0.2) / 2
        arrow(axes, (centre, 2.35), (centre, 2.8))
        box(axes, left, 2.8, step - 0.2, height, text, "#f4f4ff")
        arrow(axes, (centre, 2.8 + height), (width / 2, 3.3 + height))
    axes.text(
        width / 2,
        3.35 + height,
        f"{config.name}: weighted sum of the levels' losses",
        ha="center",
        size=11,
    )
    figure.savefig(output, dpi=110, bbox_inches="tight")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="vivi_ex4")
    parser.add_argument(
        "--output", default=pathlib.Path(__file__).with_name("objective.png")
    )
    flags = parser.parse_args()
    draw(get_config(flags.config), flags.output)


if __name__ == "__main__":
    main()
