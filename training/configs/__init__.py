"""Named rows, each with one config at paper scale and at demo scale."""

from vivi_keras.training.configs.rows import ROWS, get_config

__all__ = ["ROWS", "get_config"]
