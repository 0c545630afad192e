"""Films of coloured shots, their data set, a small module, and an index."""

import shutil

import archive_helpers
import evaluation_modules
import pytest

from vivi_keras import archive


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """`films`, `data` prepared from them, `module`, and their `index`."""
    folder = tmp_path_factory.mktemp("archive")
    archive_helpers.made_films(folder / "films")
    archive_helpers.prepared(folder / "films", folder / "data")
    evaluation_modules.save(folder / "module")
    archive.embed(
        folder / "module",
        folder / "index",
        dataset=folder / "data",
        videos=folder / "films",
        image_size=32,
    )
    return folder


@pytest.fixture
def copied(made, tmp_path):
    """A copy of `made` to change; the index names the copy's folders."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"
