"""A graph for approximate search of millions of frames (HNSW, by usearch)."""

import numpy as np

from vivi_keras import checks
from vivi_keras.archive import store as store_lib

NAME = "approximate.usearch"
# Edges per node, and nodes visited when one is added and when one is searched.
# usearch's defaults (16, 128, 64) find 0.88 of the 10 nearest. [O]
CONNECTIVITY = 32
EXPANSION_ADD = 128
EXPANSION_SEARCH = 192
_BATCH = 16_384


def build(store, vectors):
    """The graph of an index's frames: a new one, or the extended old one.

    Args:
        store: `store.Store`.
        vectors: float16 [N, D], of the frames of its parts.
    """
    usearch = store_lib.needs("usearch.index")
    entry = store.manifest["approximate"] or {"parts": []}
    path, old = store.folder / NAME, entry["parts"]
    names = [part["name"] for part in store.parts]
    if path.exists() and old and names[: len(old)] == old:
        graph = _restore(path, view=False)
    else:
        graph = usearch.Index(
            ndim=store.num_features,
            metric=usearch.MetricKind.Cos,
            dtype=usearch.ScalarKind.F16,
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
        )
    graph.expansion_search = EXPANSION_SEARCH
    for first in range(len(graph), len(vectors), _BATCH):
        rows = np.arange(first, min(first + _BATCH, len(vectors)))
        graph.add(rows, vectors[rows])
    return graph


def save(store, graph, recall):
    """Writes a graph; it is used once the manifest names it."""
    store.manifest["approximate"] = None
    store.save()
    graph.save(str(store.folder / NAME))
    names = [part["name"] for part in store.parts]
    store.manifest["approximate"] = {"parts": names, "recall_at_10": recall}
    store.save()


def open_graph(store):
    """Opens the graph of an index, mapped from disk.

    Raises: ValueError: there is none, or it is not of the index's frames.
    """
    path, entry = store.folder / NAME, store.manifest["approximate"]
    names = [part["name"] for part in store.parts]
    if entry is None or entry["parts"] != names or not path.exists():
        raise ValueError(
            f"approximate search needs a graph of the frames in {store.folder}."
            " Got: none, or an older one. Run vivi-embed --approximate."
        )
    graph = _restore(path, view=True)
    if len(graph) != sum(part["frames"] for part in store.parts):
        raise ValueError(_DAMAGED.format(path, "it lacks frames"))
    graph.expansion_search = EXPANSION_SEARCH
    return graph


_DAMAGED = "{} is damaged ({}); delete it and run vivi-embed --approximate"


def _restore(path, view):
    usearch = store_lib.needs("usearch.index")
    try:
        graph = usearch.Index.restore(str(path), view=view)
    except Exception as error:  # usearch raises many kinds
        raise ValueError(_DAMAGED.format(path, checks.reason(error))) from error
    if graph is None:
        raise ValueError(_DAMAGED.format(path, "not a graph of usearch"))
    return graph


def nearest(graph, vector, count):
    """The nearest frames in a graph: rows int64 [<= count], their vectors."""
    found = graph.search(vector.astype(np.float16), count)
    rows = np.asarray(found.keys, np.int64).reshape(-1)
    return rows, np.asarray(graph.get(rows)).reshape(len(rows), -1)
