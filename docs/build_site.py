"""What `make docs` adds to mkdocs: source files, and our docstrings' form.

Pages in docs/ link to files elsewhere in the repository, such as the lines of
code in one_step.md. The site gets a copy of each such file, and the links lead
there. A link to a file that does not exist is left for mkdocs to report.

Our docstrings have sections such as "Returns: int." on one line; griffe, which
reads them for mkdocstrings, expects the text below "Returns:".
"""

import os
import pathlib
import re

import griffe
import pygments
from mkdocs.structure.files import File
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
COPIES = "source/"  # where the site has files from outside of docs/
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Adds every file outside of docs/ that a page links to."""
    waiting = [
        (file.src_uri, file.content_string)
        for file in files.documentation_pages()
    ]
    added = set()
    while waiting:
        page, text = waiting.pop()
        for match in LINK.finditer(text):
            path = _linked(page, match[1])
            if path is None or path in added:
                continue
            added.add(path)
            uri, content = _copy_uri(path), path.read_text(encoding="utf-8")
            if path.suffix == ".md":
                waiting.append((uri, content))
            else:
                content = _as_page(path, content)
            files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown, page, **unused):
    """Makes links to files outside of docs/ lead to their copies."""
    place = page.file.src_uri

    def link(match):
        path, anchor = _linked(place, match[1]), match[2] or ""
        if path is None:
            return match[0]
        uri = os.path.relpath(_copy_uri(path), os.path.dirname(place) or ".")
        return f"]({uri}{re.sub('^#L', '#L-', anchor)})"

    return LINK.sub(link, markdown)


def _linked(page, link):
    """The path of a link's file if it is not in docs/; otherwise None."""
    inside = page.startswith(COPIES)
    place = ROOT / page.removeprefix(COPIES) if inside else DOCS / page
    path = pathlib.Path(os.path.normpath(place.parent / link))
    if path.is_relative_to(DOCS) or not path.is_relative_to(ROOT):
        return None
    return path if path.is_file() else None


def _copy_uri(path):
    uri = COPIES + path.relative_to(ROOT).as_posix()
    return uri if path.suffix == ".md" else f"{uri}.html"


def _as_page(path, content):
    """A page of a source file; line 7 has the anchor L-7."""
    formatter = HtmlFormatter(
        full=True,
        title=path.relative_to(ROOT).as_posix(),
        lineanchors="L",
        linenos="inline",
    )
    return pygments.highlight(
        content, get_lexer_for_filename(path.name), formatter
    )


class InlineSections(griffe.Extension):
    """Rewrites a docstring's sections into the form that griffe reads."""

    def on_object(self, *, obj, **unused):
        if obj.docstring is not None:
            obj.docstring.value = rewrite_sections(obj.docstring.value)


def rewrite_sections(text):
    """A docstring with the texts of its sections below their titles.

    >>> print(rewrite_sections("Adds.\\n\\nReturns: an int,\\n    the sum."))
    Adds.
    <BLANKLINE>
    <BLANKLINE>
    Returns:
        an int, the sum.
    """
    lines, found = text.splitlines(), []
    while lines:
        line = lines.pop(0)
        title = re.match(
            r"(Returns|Raises|Sources?|Args|Attributes):(.*)", line
        )
        if not title:
            if line.startswith(">>>"):
                found += ["", "```pycon", line]
                while lines and lines[0].strip():
                    found.append(lines.pop(0))
                line = "```"
            found.append(line)
            continue
        if title[1] in ("Args", "Attributes"):
            found += ["", line]
            continue
        words = [title[2].strip()]
        while lines and lines[0].startswith(" "):
            words.append(lines.pop(0).strip())
        text = " ".join(words).strip()
        if title[1].startswith("Source"):
            found += ["", f"**{title[1]}**: {text}"]
            continue
        found += ["", f"{title[1]}:"]
        if title[1] == "Raises":  # "ValueError: ... OSError: ..."
            found += [
                f"    {part.strip()}"
                for part in re.split(r"(?<=[.;]) ?(?=[A-Z][\w.]*: )", text)
            ]
        else:
            found.append(f"    {text}")
    return "\n".join(found)
