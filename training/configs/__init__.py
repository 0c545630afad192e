"""Named rows, each with one config at paper scale and at demo scale."""

from vivi_keras.training.configs.adapt_rows import set_steps as set_adapt_steps
from vivi_keras.training.configs.rows import ROWS, get_config

__all__ = ["ROWS", "get_config", "set_adapt_steps"]
