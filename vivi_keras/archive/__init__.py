"""Archives of videos: embedding, search, labelling and classification.

Needs the extra `archive`: pip install 'vivi-keras[archive]'.
"""

from vivi_keras.archive.embedding import embed
from vivi_keras.archive.index import Hit, Index, open_index

__all__ = ["Hit", "Index", "embed", "open_index"]
