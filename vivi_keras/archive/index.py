"""An index opened for reading: its rows, its vectors, and search."""

import dataclasses
import functools
import pathlib

import numpy as np

from vivi_keras import checks, files
from vivi_keras.archive import store as store_lib
from vivi_keras.data import range_labels
from vivi_keras.features.knn import normalise

NUM_NEIGHBOURS = 10  # recall is measured for this many
_NUM_QUERIES = 100
_KEYS = ("video_id", "first_shot", "shot")
# Lists of similar frames for approximate search (IVF), by faiss.
LISTS = "approximate.faiss"
# There are about 4 sqrt(N) lists, each with a centre that k-means found. A
# search compares the query with the frames of the NUM_PROBES nearest lists. [O]
NUM_PROBES = 64
_FRAMES_OF_A_CENTRE, _ITERATIONS, _BATCH = 40, 10, 16_384


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
    for name in ("pyarrow", "pandas", "usearch", "faiss"):
        store_lib.import_extra(name)
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
        pandas = store_lib.import_extra("pandas")
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
        pandas = store_lib.import_extra("pandas")
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
    def _lists(self):
        return _open_lists(self._store)

    def search(self, vector, k=10, approximate=False):
        """The shots with the frames most similar to a vector, nearest first.

        Args:
            vector: float [D], features of an image by the index's module.
            k: number of shots; fewer are returned from a smaller index.
            approximate: search the lists that `build_approximate` made: much
                faster for millions of frames, but a neighbour may be missed.
        Returns: list of Hit, one per shot.
        Raises: ValueError: the vector does not have D numbers, is not finite
            or is all zero, or `build_approximate` has not been called for the
            present frames.
        """
        checks.check_whole("k", k, 1, 1_000_000)
        vector = np.asarray(vector, np.float32)
        if vector.shape != (self.num_features,):
            raise ValueError(
                f"vector must be of shape ({self.num_features},), as in the"
                f" index. Got: {vector.shape}"
            )
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length == 0:
            raise ValueError(
                "vector must be finite and not all zero. Got: a vector of"
                f" length {length}"
            )
        find = self._nearest_in_lists if approximate else self._nearest
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
            # The search may round the query to float16; `cosines` does not.
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
        index = store_lib.import_extra("usearch.index")
        found = index.search(
            self.vectors,
            vector.astype(np.float16),
            count,
            index.MetricKind.Cos,
            exact=True,
        )
        rows = np.asarray(found.keys, np.int64).reshape(-1)
        return rows, self.vectors[rows]

    def _nearest_in_lists(self, vector, count):
        """Like `_nearest`, but from the lists, vectors included."""
        return _nearest_in(self._lists, vector, count)

    def build_approximate(self):
        """Builds or extends the lists of similar frames (IVF) that approximate
        search needs.

        They are rebuilt if frames were removed from the index, or if it has
        become four times as large; else only new frames are added. They keep
        the direction of each vector, as float16.

        Returns: recall at 10 against exact search, in [0, 1], with 100 frames
            of the index as queries; a query does not count as its own
            neighbour.
        Raises: ValueError: the index has no frames.
        """
        if not self.num_frames:
            raise ValueError(
                f"the index {self.folder} must have frames. Got: 0"
            )
        with files.locked(self.folder, ".lock"):
            built = _build_lists(self._store, self.vectors)
            recall = self._recall(built)
            _save_lists(self._store, built, recall)
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
            videos: folder of the files; None for the one given to `embed`.
        """
        root = videos or self.manifest["videos"]
        if self.manifest["source"]["kind"] == "images":
            root = videos or self.manifest["source"]["path"]
        path = pathlib.Path(root or "", video)
        return path if path.exists() else None

    def records(self):
        """The data set's records: dict of arrays [R] number, video_id,
        first_shot and video; None until a run has finished."""
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


def _build_lists(store, vectors):
    """The lists of an index's frames: new ones, or the extended old ones.

    Args:
        store: `store.Store`.
        vectors: float16 [N, D], of the frames of its parts.
    """
    faiss = store_lib.import_extra("faiss")
    entry = store.manifest["approximate"] or {"parts": []}
    path, old = store.folder / LISTS, entry["parts"]
    names = [part["name"] for part in store.parts]
    num_lists, lists = _num_lists(len(vectors)), None
    if path.exists() and old and names[: len(old)] == old:
        lists = _read_lists(path, entry)
    if lists is None or num_lists > 2 * lists.nlist:
        lists = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(store.num_features),
            store.num_features,
            num_lists,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
        )
        lists.cp.niter, lists.cp.spherical = _ITERATIONS, True
        lists.cp.min_points_per_centroid = 1  # else it warns of few frames
        rows = np.random.default_rng(0).choice(
            len(vectors),
            min(len(vectors), _FRAMES_OF_A_CENTRE * num_lists),
            replace=False,
        )
        lists.train(normalise(vectors[np.sort(rows)]))
    for first in range(lists.ntotal, len(vectors), _BATCH):
        lists.add(normalise(vectors[first : first + _BATCH]))
    return lists


def _num_lists(num_frames):
    most = max(1, num_frames // _FRAMES_OF_A_CENTRE)
    return min(most, round(4 * num_frames**0.5))


def _save_lists(store, lists, recall):
    """Writes the lists; they are used once the manifest names them."""
    faiss = store_lib.import_extra("faiss")
    store.manifest["approximate"] = None
    store.save()
    path = store.folder / LISTS
    faiss.write_index(lists, str(path))
    store.manifest["approximate"] = {
        "parts": [part["name"] for part in store.parts],
        "bytes": path.stat().st_size,
        "recall_at_10": recall,
    }
    store.save()


def _open_lists(store):
    """Opens the lists of an index, mapped from disk.

    Raises: ValueError: there are none, they are damaged, or they were built for
        other frames.
    """
    path, entry = store.folder / LISTS, store.manifest["approximate"]
    names = [part["name"] for part in store.parts]
    if entry is None or entry["parts"] != names or not path.exists():
        raise ValueError(
            f"approximate search needs {LISTS} of the frames in"
            f" {store.folder}. Got: none, or an older one. Run vivi-embed"
            " --approximate."
        )
    lists = _read_lists(path, entry, mapped=True)
    if lists.ntotal != sum(part["frames"] for part in store.parts):
        raise ValueError(_DAMAGED.format(path, "it lacks frames"))
    return lists


_DAMAGED = "{} is damaged ({}); delete it and run vivi-embed --approximate"


def _read_lists(path, entry, mapped=False):
    faiss = store_lib.import_extra("faiss")
    size, expected = path.stat().st_size, entry.get("bytes")
    if size != expected:
        raise ValueError(
            _DAMAGED.format(path, f"{size} bytes instead of {expected}")
        )
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP if mapped else 0)
    except RuntimeError as error:
        raise ValueError(_DAMAGED.format(path, checks.reason(error))) from error


def _nearest_in(lists, vector, count):
    """The nearest frames in the lists: rows int64 [<= count], their vectors,
    of length 1.

    More lists are searched if the nearest ones hold too few frames.
    """
    faiss = store_lib.import_extra("faiss")
    query, num_probes = normalise(vector[None]), NUM_PROBES
    while True:
        near = faiss.SearchParametersIVF(nprobe=min(num_probes, lists.nlist))
        _, rows, vectors = lists.search_and_reconstruct(
            query, count, params=near
        )
        rows, vectors = rows[0], vectors[0]
        if rows[-1] >= 0 or num_probes >= lists.nlist:
            return rows[rows >= 0], vectors[rows >= 0]
        num_probes *= 4
