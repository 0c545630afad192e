"""The links of docs/one_step.md lead to the lines that they name."""

import pathlib
import re

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "one_step.md"


def test_each_link_leads_to_its_definition():
    links = re.findall(r"\[`(\w+)`\]\(([^)#]+)#L(\d+)\)", PAGE.read_text())
    assert len(links) > 20
    for name, path, number in links:
        lines = (PAGE.parent / path).read_text().splitlines()
        line = lines[int(number) - 1]
        assert re.match(rf"\s*(def|class) {name}\b", line), (name, path, line)
