"""Fills the templates beside this file; HTML pages share a style sheet."""

import base64
import functools
import pathlib

import jinja2
import markupsafe

FOLDER = pathlib.Path(__file__).parent


def render(name, **values):
    """A whole HTML page as text, with its style inside.

    Args:
        name: file name of a template, such as "comparison.html".
        values: what the template shows. Text is escaped: a file named
            `<script>` is shown as text.
    Returns: str.
    """
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template(name)
        .render(style=markupsafe.Markup(style), **values)
    )


def render_markdown(name, **values):
    """A Markdown file as text; nothing is escaped.

    Args:
        name: file name of a template, such as "card.md".
        values: what the template shows.
    Returns: str, which ends with a newline.
    """
    return _environment().get_template(name).render(values)


def data_uri(image, kind):
    """An image as the `src` of an <img>, so that a page is one file.

    Args:
        image: bytes of the file.
        kind: "png" or "jpeg".
    """
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


@functools.cache
def _environment():
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=jinja2.select_autoescape(),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
