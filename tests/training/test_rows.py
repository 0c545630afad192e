"""The named rows, and what a step of each sees."""

import pytest

from vivi_keras.runs import batches
from vivi_keras.training import pretrain
from vivi_keras.training.configs import rows

# Rows that are compared with one another: the demo scale of each group sees
# so many images a step.
GROUPS = {
    32: ("ex_yt_frame", "ex_yt_shot"),
    64: (
        "vivi_ex2_order",
        "vivi_ex2",
        "vivi_rot2",
        "from_scratch",
        "exemplar",
        "ex_imagenet",
        "rotation",
        "sup_100",
        "sup_10",
        "sup_exemplar_100",
        "sup_rotation_100",
    ),
    128: (
        "vivi_ex4",
        "vivi_ex4_big",
        "vivi_rot4",
        "semi_ex_10",
        "semi_rotation_10",
    ),
    512: ("adapt_frame", "adapt_shot", "adapt_frame_shot", "adapt_vivi"),
    192: ("vivi_ex4_co10", "vivi_ex4_co100", "vivi_ex4_co100_big"),
}


def test_every_row_is_in_one_group():
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(rows.ROWS)


@pytest.mark.parametrize(
    "name, count",
    [(name, count) for count, names in GROUPS.items() for name in names],
)
def test_compared_rows_see_equally_many_images_a_step(name, count):
    assert batches.images_per_step(rows.get_config(f"{name}_demo")) == count


def test_the_list_shows_the_images_of_a_step(capsys):
    pretrain._print_rows()
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split()[0]: line.split()[1:3] for line in lines[2:-1]}
    assert shown.keys() == rows.ROWS.keys()
    for name, (paper, demo) in shown.items():
        for scale, text in (("", paper), ("_demo", demo)):
            config = rows.get_config(name + scale)
            count = batches.images_per_step(config)
            assert text == f"{count:,}"
    assert shown["ex_yt_frame"] == ["4,096", "32"]
