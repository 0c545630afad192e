"""HTML pages and Markdown files, made from the templates in this folder."""

from vivi_keras.pages.render import data_uri, render, render_markdown

__all__ = ["data_uri", "render", "render_markdown"]
