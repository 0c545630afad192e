"""docs/notebooks/archive.ipynb runs and prints what is stored in it."""

import pathlib
import re

import nbclient
import nbformat
import pytest

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "docs" / "notebooks"


def printed(notebook):
    """What each cell prints, with numbers replaced."""
    return [
        re.sub(
            r"\d+(\.\d+)?",
            "0",
            "".join(
                output["text"]
                for output in cell["outputs"]
                if output.get("name") == "stdout"
            ),
        )
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_its_outputs_are_small_and_text():
    file = NOTEBOOKS / "archive.ipynb"
    assert file.stat().st_size < 20_000
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    for cell in cells:
        assert {output["output_type"] for output in cell["outputs"]} <= {
            "stream"
        }
    assert all(printed(notebook))


@pytest.mark.slow  # renders films, and runs TensorFlow in a kernel
def test_it_runs_and_prints_the_same(tmp_path):
    notebook = nbformat.read(NOTEBOOKS / "archive.ipynb", as_version=4)
    expected = printed(notebook)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    assert printed(notebook) == expected
