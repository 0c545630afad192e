"""The pages in a browser: they fit the window, and a click plays the shot."""

import shutil

import numpy as np
import pytest

from vivi_keras import archive
from vivi_keras.archive import classify, label_pages, search

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs the extra [browser], playwright"
)
BROWSER = next(
    filter(
        None,
        map(
            shutil.which,
            ("chromium", "chromium-browser", "google-chrome", "chrome"),
        ),
    ),
    None,
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs a browser: Chromium or Chrome in PATH"
)
# Notes where a video is at each jump and each pause.
WATCH = """
window.jumps = []; window.pauses = [];
for (const [name, list] of [["seeking", jumps], ["pause", pauses]])
  document.addEventListener(name, e => list.push(e.target.currentTime), true);
"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=BROWSER,
            args=["--autoplay-policy=no-user-gesture-required"],
        )
        yield opened
        opened.close()


def pages(made, folder):
    """(page, selector of its links) of each kind of page."""
    index = archive.open_index(made / "index")
    search.write(
        folder / "hits.html",
        index,
        index.search(index.vectors[0], 12),
        "q",
        None,
    )
    label_pages.write_suggestions(
        folder / "labels.csv", index, range(index.num_shots)
    )
    kernel = np.random.default_rng(0).normal(size=(index.num_features, 3))
    head = classify.Head(kernel, np.zeros(3), ("red", "green", "blue"))
    label_pages.write_predictions(folder / "classes", index, head)
    return [
        (folder / "hits.html", ".cards a"),
        (folder / "labels.html", ".cards a"),
        (folder / "classes" / "timeline.html", ".cards a"),
        (folder / "classes" / "timeline.html", ".timeline a"),
    ]


def test_a_click_plays_the_shot_from_its_start(made, tmp_path, browser):
    index = archive.open_index(made / "index")
    spans = {
        (f"{shot.start_seconds:.2f}", f"{shot.stop_seconds:.2f}")
        for shot in index.shots.itertuples()
    }
    for path, selector in pages(made, tmp_path):
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.add_init_script(WATCH)
        for width in (400, 1400):
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(path.as_uri())
            inside = "document.documentElement.scrollWidth"
            assert page.evaluate(inside) <= width, path.name
        assert page.evaluate(
            "[...document.images].every(i => i.complete && i.naturalWidth > 9)"
        )
        links = page.locator(selector)
        assert links.count() == index.num_shots
        # A shot that is neither a film's first nor its last one.
        hrefs = [link.get_attribute("href") for link in links.all()]
        number = next(n for n, h in enumerate(hrefs) if h.endswith("1.50,3.00"))
        start, stop = hrefs[number].partition("#t=")[2].split(",")
        assert (start, stop) in spans
        links.nth(number).click()
        page.wait_for_function("window.pauses.length > 0", timeout=60_000)
        assert page.evaluate("document.querySelector('video').error") is None
        # Less than a frame later: the video plays at once.
        assert 0 <= page.evaluate("jumps[0]") - float(start) < 1 / 24
        assert page.evaluate("pauses[0]") == pytest.approx(float(stop), abs=0.3)
        page.close()
