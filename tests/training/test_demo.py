"""`make demo` and `make film`, smaller: as a user starts them."""

import json
import re
import subprocess
import sys

import pytest


def run(name, *arguments, **options):
    done = subprocess.run(
        [sys.executable, "-m", f"vivi_keras.training.{name}", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # records and prepares 8 minutes of video, and trains
def test_the_demo_ends_with_a_verdict(tmp_path):
    pytest.importorskip("vizdoom", reason="pip install 'vivi-keras[domain]'")
    flags = ["--output=demo", "--maps=2", "--walks=4", "--steps=2"]
    said = run("demo", *flags, cwd=tmp_path)
    verdict = json.loads(
        (tmp_path / "demo/adapted/run/verdict/summary.json").read_text()
    )
    assert verdict["verdict"] in said
    assert len(verdict["settings"]["classes"]) == 2
    assert verdict["verdict"] in (tmp_path / "demo/index.html").read_text()
    assert "demo/dataset" in {
        str(path.relative_to(tmp_path)) for path in tmp_path.glob("demo/*")
    }
    # Again, nothing is left to do but the page.
    again = run("demo", *flags, cwd=tmp_path)
    assert "epoch" not in again
    assert re.search(r"Index: \d+ shots", again)


@pytest.mark.slow  # cuts and prepares a film, and trains
def test_a_film_of_ones_own(film_of_minutes, tmp_path):
    flags = [f"--film={film_of_minutes}", "--output=film", "--steps=2"]
    said = run("film", *flags, cwd=tmp_path)
    assert "there were no labels" in (tmp_path / "film/index.html").read_text()
    assert re.search(r"pieces of about 30 s", said)


@pytest.fixture
def film_of_minutes(tmp_path):
    from vivi_keras.demo import corpus

    corpus.render_corpus(
        tmp_path / "films",
        num_films=1,
        height=64,
        width=96,
        frames_per_second=10,
        num_shots=(25, 25),
        shot_seconds=(3.0, 3.0),
    )
    return next((tmp_path / "films").glob("*.mp4"))
