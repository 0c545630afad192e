"""The modules in helpers/ can be imported by tests in any folder."""

import os
import pathlib
import sys

HELPERS = str(pathlib.Path(__file__).parent / "helpers")
sys.path.insert(0, HELPERS)
# By the processes that tests start, too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [HELPERS, os.environ.get("PYTHONPATH")])
)
