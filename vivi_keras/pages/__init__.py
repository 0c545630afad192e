"""HTML pages, made from the templates in this folder."""

from vivi_keras.pages.render import data_uri, render

__all__ = ["data_uri", "render"]
