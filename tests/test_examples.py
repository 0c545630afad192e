"""The examples in the docstrings of the public names run as written."""

import doctest
import os

import numpy as np
import pytest
from film_helpers import render_smallest_corpus

import vivi_keras
from vivi_keras import (
    archive,
    data,
    losses,
    models,
    objective,
    prepare,
    trainer,
    video,
)

NAMES = {
    f"{place.__name__}.{name}": getattr(place, name)
    for place, names in (
        (vivi_keras, ("HubEncoder", "Objective", "ResNet50V2", "ViviModel")),
        (vivi_keras, ("export_encoder", "load")),
        (objective, ("make_level",)),
        (losses, losses.__all__),
        (data, data.__all__),
        (data.labelled, ("from_arrays",)),
        (video, ("detect_shots",)),
        (prepare, ("prepare",)),
        (archive, ("embed", "open_index")),
    )
    for name in names
}
GLOBALS = {
    "archive": archive,
    "data": data,
    "losses": losses,
    "make_level": objective.make_level,
    "models": models,
    "np": np,
    "prepare": prepare,
    "trainer": trainer,
    "video": video,
    "vivi_keras": vivi_keras,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`films`, and `data` prepared from them."""
    folder = tmp_path_factory.mktemp("examples")
    render_smallest_corpus(folder / "films")
    prepare.prepare(folder / "films", folder / "data", short_side=48)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_example(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(NAMES[name], name, globs=dict(GLOBALS))
    assert test.examples, "has no example"
    output = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)
    assert os.getcwd() == str(folder)
