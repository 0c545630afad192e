"""An index opened for reading: its rows, its vectors, and search."""

import dataclasses
import functools
import pathlib

import numpy as np

from vivi_keras import checks, files
from vivi_keras.archive import store as store_lib
from vivi_keras.data import range_labels

NUM_NEIGHBOURS = 10  # of the recall that is measured
_NUM_QUERIES = 100
_KEYS = ("video_id", "first_shot", "shot")
# The graph for approximate search of millions of frames: HNSW, by usearch.
GRAPH = "approximate.usearch"
# Edges per node, and nodes visited when one is added and when one is searched.
# usearch's defaults (16, 128, 64) find 0.88 of the 10 nearest. [O]
CONNECTIVITY = 32
EXPANSION_ADD = 128
EXPANSION_SEARCH = 192
_BATCH = 16_384


@dataclasses.dataclass(frozen=True)
class Hit:
    """A shot that a search found.

    Attributes:
        score: cosine of its best frame with the query, in [-1, 1].
        video: path of the video as text.
        shot: number of the shot within the video.
        start_seconds, stop_seconds: the shot, [start, stop).
        seconds: time of its best frame.
        row: the best frame's row in `Index.vectors`.
        shot_row: the shot's row in `Index.shot_vectors`.
    """

    score: float
    video: str
    shot: int
    start_seconds: float
    stop_seconds: float
    seconds: float
    row: int
    shot_row: int


def open_index(folder):
    """Opens an index that `embed` wrote.

    Args:
        folder: folder of the index.
    Returns: Index.
    Raises: ValueError: it is not an index or is damaged. ImportError: the extra
        `archive` is not installed.

    >>> _ = archive.embed("vivi-r14w025-film/1", "index", dataset="data")
    >>> index = archive.open_index("index")
    >>> index.vectors.shape, index.shot_vectors.shape
    ((24, 512), (12, 512))
    >>> [hit.shot_row for hit in index.search(index.vectors[4], k=1)]
    [2]
    """
    for name in ("pyarrow", "pandas", "usearch"):
        store_lib.needs(name)
    return Index(store_lib.open_store(folder))


class Index:
    """Vectors of an archive's frames and shots, read at first use.

    Attributes:
        folder: where it is.
        manifest: dict of index.json: module, source, settings.
        num_frames, num_shots, num_features: ints N, S, D.
    """

    def __init__(self, store):
        self._store = store
        self.folder, self.manifest = store.folder, store.manifest
        self.num_features = store.num_features
        self.num_frames = sum(part["frames"] for part in store.parts)
        self.num_shots = sum(part["shots"] for part in store.parts)

    @functools.cached_property
    def vectors(self):
        """Features of the frames: float16 [N, D], as the module gave them."""
        return self._store.vectors("frames")

    @functools.cached_property
    def shot_vectors(self):
        """Means over the frames of each shot: float16 [S, D]."""
        return self._store.vectors("shots")

    @functools.cached_property
    def shots(self):
        """pandas frame of S rows: video, video_id, first_shot, shot,
        start_seconds, stop_seconds, num_frames."""
        pandas = store_lib.needs("pandas")
        columns = ["video", *_KEYS, "start_seconds", "stop_seconds"]
        table = self._store.read("shots", [*columns, "num_frames"])
        frame = pandas.DataFrame(table)
        records = self.records()
        if records is not None:  # a video may have another path by now
            names = dict(
                zip(records["video_id"], records["video"], strict=True)
            )
            frame["video"] = frame["video_id"].map(names).fillna(frame["video"])
        return frame

    @functools.cached_property
    def frames(self):
        """pandas frame of N rows: video, video_id, shot, shot_row, place (of
        the frame in its record), seconds."""
        pandas = store_lib.needs("pandas")
        table = self._store.read("frames", ["place", "seconds"])
        rows = self.shot_of_frame
        return pandas.DataFrame(
            {
                "video": pandas.Categorical(self.shots["video"].iloc[rows]),
                "video_id": self.shots["video_id"].to_numpy()[rows],
                "shot": self.shots["shot"].to_numpy()[rows],
                "shot_row": rows,
                **table,
            }
        )

    @functools.cached_property
    def shot_of_frame(self):
        """The row in `shots` of each frame: int64 [N]."""
        counts = self._store.read("shots", ["num_frames"])["num_frames"]
        return np.repeat(np.arange(len(counts)), counts)

    @functools.cached_property
    def footage(self):
        """The shots and times, for `range_labels.join`."""
        shots = self.shots
        return range_labels.Footage(
            f"the index {self.folder}",
            shots["video"].tolist(),
            shots["video_id"].to_numpy(),
            shots["start_seconds"].to_numpy(),
            shots["stop_seconds"].to_numpy(),
            shots["num_frames"].to_numpy(),
            self._seconds,
            self.manifest["videos"],
        )

    @functools.cached_property
    def _seconds(self):
        return self._store.read("frames", ["seconds"])["seconds"]

    @functools.cached_property
    def _graph(self):
        return _open_graph(self._store)

    def search(self, vector, k=10, approximate=False):
        """The shots with the frames most similar to a vector, nearest first.

        Args:
            vector: float [D], features of an image by the index's module.
            k: number of shots; fewer are returned from a smaller index.
            approximate: search the graph that `build_graph` made: much faster
                for millions of frames, but a neighbour may be missed.
        Returns: list of Hit, one per shot.
        Raises: ValueError: the vector is of another length, not finite or
            all zero, or there is no graph.
        """
        checks.check_whole("k", k, 1, 1_000_000)
        vector = np.asarray(vector, np.float32)
        if vector.shape != (self.num_features,):
            raise ValueError(
                f"vector must be of shape ({self.num_features},), as the"
                f" index. Got: {vector.shape}"
            )
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length == 0:
            raise ValueError(
                "vector must be finite and not all zero. Got: a vector of"
                f" length {length}"
            )
        find = self._nearest_in_graph if approximate else self._nearest
        return [
            self._hit(row, score)
            for row, score in self._best_of_shots(find, vector / length, k)
        ]

    def _best_of_shots(self, find, vector, k):
        """The k best shots: list of (row of the best frame, cosine).

        Frames come nearest first, so the first k shots among them are the
        best k; more frames are requested until k shots are found.
        """
        count, k = 4 * k, min(k, self.num_shots)
        while True:
            count = min(count, self.num_frames)
            rows, vectors = find(vector, count)
            scores = cosines(vectors, vector)
            # The libraries round the query to float16; this does not.
            order = np.lexsort((rows, -scores))
            owners = self.shot_of_frame[rows[order]]
            firsts = np.sort(np.unique(owners, return_index=True)[1])[:k]
            if len(firsts) == k or count == self.num_frames:
                best = order[firsts]
                return list(zip(rows[best], scores[best], strict=True))
            count *= 4

    def _nearest(self, vector, count):
        """The nearest frames, exactly: rows int64 [count], their vectors."""
        if not count:
            return np.zeros(0, np.int64), self.vectors
        index = store_lib.needs("usearch.index")
        found = index.search(
            self.vectors,
            vector.astype(np.float16),
            count,
            index.MetricKind.Cos,
            exact=True,
        )
        rows = np.asarray(found.keys, np.int64).reshape(-1)
        return rows, self.vectors[rows]

    def _nearest_in_graph(self, vector, count):
        """As `_nearest`, by the graph: the vectors are read from it."""
        return _nearest_in(self._graph, vector, count)

    def build_graph(self):
        """Builds or extends the graph for approximate search.

        It is rebuilt if frames were removed from the index; else only new
        frames are added.

        Returns: recall at 10 against exact search, in [0, 1]: 100 frames of
            the index are searched, and each frame itself does not count.
        Raises: ValueError: the index has no frames.
        """
        if not self.num_frames:
            raise ValueError(
                f"the index {self.folder} must have frames. Got: 0"
            )
        with files.locked(self.folder, ".lock"):
            built = _build_graph(self._store, self.vectors)
            recall = self._recall(built)
            _save_graph(self._store, built, recall)
        return recall

    def _recall(self, built):
        count = min(NUM_NEIGHBOURS + 1, self.num_frames)
        queries = np.random.default_rng(0).choice(
            self.num_frames, min(_NUM_QUERIES, self.num_frames), replace=False
        )
        found = wanted = 0
        for query in queries.tolist():
            vector = self.vectors[query].astype(np.float32)
            exact = {*self._nearest(vector, count)[0].tolist()} - {query}
            near = {*_nearest_in(built, vector, count)[0].tolist()}
            found, wanted = found + len(exact & near), wanted + len(exact)
        return found / wanted if wanted else 1.0

    def _hit(self, row, score):
        shot_row = int(self.shot_of_frame[row])
        shot = self.shots.iloc[shot_row]
        return Hit(
            float(score),
            shot["video"],
            int(shot["shot"]),
            float(shot["start_seconds"]),
            float(shot["stop_seconds"]),
            float(self._seconds[row]),
            int(row),
            shot_row,
        )

    def video_path(self, video, videos=None):
        """Where the file of a video is: a path, or None if it moved.

        Args:
            video: its path as text, as in `shots`.
            videos: folder of the files; None for the one of `embed`.
        """
        root = videos or self.manifest["videos"]
        if self.manifest["source"]["kind"] == "images":
            root = videos or self.manifest["source"]["path"]
        path = pathlib.Path(root or "", video)
        return path if path.exists() else None

    def records(self):
        """Where shots are in the data set: dict of arrays [R] number,
        video_id, first_shot and video; None until a run has finished."""
        return self._store.read_records()

    def is_complete(self):
        """Whether the last `embed` has finished."""
        return self.manifest["complete"]


def cosines(vectors, vector):
    """Cosines float64 [N] of vectors [N, D] with one vector [D]."""
    vectors = np.asarray(vectors, np.float64)
    vector = np.asarray(vector, np.float64)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    return np.clip(vectors @ vector / np.maximum(lengths, 1e-12), -1, 1)


def _build_graph(store, vectors):
    """The graph of an index's frames: a new one, or the extended old one.

    Args:
        store: `store.Store`.
        vectors: float16 [N, D], of the frames of its parts.
    """
    usearch = store_lib.needs("usearch.index")
    entry = store.manifest["approximate"] or {"parts": []}
    path, old = store.folder / GRAPH, entry["parts"]
    names = [part["name"] for part in store.parts]
    if path.exists() and old and names[: len(old)] == old:
        graph = _restore_graph(path, view=False)
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


def _save_graph(store, graph, recall):
    """Writes a graph; it is used once the manifest names it."""
    store.manifest["approximate"] = None
    store.save()
    graph.save(str(store.folder / GRAPH))
    names = [part["name"] for part in store.parts]
    store.manifest["approximate"] = {"parts": names, "recall_at_10": recall}
    store.save()


def _open_graph(store):
    """Opens the graph of an index, mapped from disk.

    Raises: ValueError: there is none, or it is not of the index's frames.
    """
    path, entry = store.folder / GRAPH, store.manifest["approximate"]
    names = [part["name"] for part in store.parts]
    if entry is None or entry["parts"] != names or not path.exists():
        raise ValueError(
            f"approximate search needs a graph of the frames in {store.folder}."
            " Got: none, or an older one. Run vivi-embed --approximate."
        )
    graph = _restore_graph(path, view=True)
    if len(graph) != sum(part["frames"] for part in store.parts):
        raise ValueError(_DAMAGED_GRAPH.format(path, "it lacks frames"))
    graph.expansion_search = EXPANSION_SEARCH
    return graph


_DAMAGED_GRAPH = (
    "{} is damaged ({}); delete it and run vivi-embed --approximate"
)


def _restore_graph(path, view):
    usearch = store_lib.needs("usearch.index")
    try:
        graph = usearch.Index.restore(str(path), view=view)
    except Exception as error:  # usearch raises many kinds
        raise ValueError(
            _DAMAGED_GRAPH.format(path, checks.reason(error))
        ) from error
    if graph is None:
        raise ValueError(_DAMAGED_GRAPH.format(path, "not a graph of usearch"))
    return graph


def _nearest_in(graph, vector, count):
    """The nearest frames in a graph: rows int64 [<= count], their vectors."""
    found = graph.search(vector.astype(np.float16), count)
    rows = np.asarray(found.keys, np.int64).reshape(-1)
    return rows, np.asarray(graph.get(rows)).reshape(len(rows), -1)
