"""Search of many vectors: ours against scikit-learn, LanceDB and NumPy.

    python benchmarks/search.py --rows=1000000 --approximate
    python benchmarks/search.py --rows=200000 --stores

Vectors are drawn around centres and written as an index. Ways of searching
alternate, query by query, so that a busy machine slows all equally; a ratio is
the median over the queries. --approximate builds the lists for approximate
search, too; --stores compares ways to store vectors: Parquet with
bytes, Parquet with lists, Arrow, LanceDB (needs lancedb).
"""

import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

_ROWS = flags.DEFINE_integer("rows", 1_000_000, "Frames.", 1000)
_WIDTH = flags.DEFINE_integer("width", 512, "Features of a frame.", 2)
_FRAMES = flags.DEFINE_integer("frames", 4, "Frames of a shot.", 1)
_QUERIES = flags.DEFINE_integer("queries", 10, "Queries of each way.", 1)
_APPROXIMATE = flags.DEFINE_bool(
    "approximate", False, "Also approximate search."
)
_STORES = flags.DEFINE_bool("stores", False, "Only compare stores.")
_FOLDER = flags.DEFINE_string(
    "folder", None, "Where to keep the index; a temporary folder if not given."
)
NUM_CENTRES, SPREAD = 20_000, 0.7
_OPEN = """
import resource, sys, time
import numpy
from vivi_keras import archive
import pyarrow.parquet, pandas, usearch.index
def clock():
    return time.perf_counter(), time.process_time()
times = [clock()]
numpy.zeros(int(sys.argv[2]), "uint8").fill(1)
times.append(clock())
pages = int(open("/proc/self/statm").read().split()[1])
index = archive.open_index(sys.argv[1])
times.append(clock())
index.vectors, index.shot_of_frame
times.append(clock())
index.search(index.vectors[0])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
memory = after - pages * resource.getpagesize()
for start, stop in zip(times, times[1:]):
    print(*(b - a for a, b in zip(start, stop)))
print(memory / index.vectors.nbytes)
"""


def blocks(rows, width, seed=0):
    """Yields blocks of vectors around centres, float32 [<= 20000, width]."""
    centres = np.random.default_rng(0).normal(size=(NUM_CENTRES, width))
    centres = centres.astype(np.float32)
    generator = np.random.default_rng(seed)
    for start in range(0, rows, 20_000):
        count = min(20_000, rows - start)
        block = centres[generator.integers(NUM_CENTRES, size=count)]
        noise = generator.standard_normal((count, width), np.float32)
        yield block + SPREAD * noise


def write_index(folder):
    """Writes the index as vivi-embed does."""
    from vivi_keras.archive import embedding, sources, store

    frames = _FRAMES.value
    parts = store.Store(
        folder,
        {
            "format": store.FORMAT,
            "module": {"path": "none", "name": "none", "sha256": "none"},
            "source": {"kind": "dataset", "path": "none", "settings": None},
            "videos": None,
            "image_size": [1, 1],
            "num_features": _WIDTH.value,
            "parts": [],
            "unfinished": None,
            "complete": True,
            "approximate": None,
        },
    )
    writer, shot = embedding._Writer(parts), 0
    for block in blocks(_ROWS.value, _WIDTH.value):
        for start in range(0, len(block), frames):
            features = block[start : start + frames]
            places = list(range(len(features)))
            seconds = [10.0 * (shot % 100) + place for place in places]
            video, number = divmod(shot, 100)
            writer.add(
                sources.Shot(
                    *(f"{video:06d}.mp4", video, number, number),
                    *(seconds[0], seconds[0] + 10, places, seconds, []),
                ),
                features,
            )
            shot += 1
    writer.flush(None)


def seconds_of(function):
    """(wall seconds, the function's result)."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def compare_search(folder):
    from sklearn.neighbors import NearestNeighbors

    from vivi_keras import archive

    index = archive.open_index(folder)
    queries = next(blocks(_QUERIES.value, _WIDTH.value, seed=1))
    if _APPROXIMATE.value and not index.manifest["approximate"]:
        seconds, _ = seconds_of(index.build_approximate)
        print(f"lists built in {seconds:.0f} s", flush=True)
    index.search(queries[0])
    ways = {"exact": lambda q: index.search(q, 10)}
    if _APPROXIMATE.value:
        recall = index.manifest["approximate"]["recall_at_10"]
        print(f"recall at 10, frames of the index as queries: {recall:.3f}")
        index.search(queries[0], 10, approximate=True)
        ways["approximate"] = lambda q: index.search(q, 10, approximate=True)
    brute = NearestNeighbors(
        n_neighbors=10, metric="cosine", algorithm="brute"
    ).fit(index.vectors.astype(np.float32))
    ways["scikit-learn"] = lambda q: brute.kneighbors(q[None])
    times = {name: [] for name in ways}
    found = {name: [] for name in ways}
    for query in queries:
        for name, way in ways.items():
            seconds, result = seconds_of(lambda w=way, q=query: w(q))
            times[name].append(seconds)
            found[name].append(result)
    for name, each in times.items():
        print(f"{name}: {1000 * np.median(each):.1f} ms a query")
    exact = np.array(times["exact"])
    print(
        "exact search is faster than scikit-learn, one by one, by"
        f" {np.median(np.array(times['scikit-learn']) / exact):.1f}"
    )
    best = [hits[0].row for hits in found["exact"]]
    same = [int(rows[0][0]) for _, rows in found["scikit-learn"]]
    print(f"the same nearest frame: {np.mean(np.equal(best, same)):.3f}")
    if _APPROXIMATE.value:
        print(
            "approximate search is faster than exact by"
            f" {np.median(exact / np.array(times['approximate'])):.1f}"
        )
        shares = [
            len({h.shot_row for h in a} & {h.shot_row for h in b}) / 10
            for a, b in zip(found["exact"], found["approximate"], strict=True)
        ]
        print(f"shots of the 10 nearest that it finds: {np.mean(shares):.3f}")


def compare_opening(folder):
    """Seconds and memory, in a process of its own.

    Memory that a process gets for the first time costs time by itself, so as
    much is filled first.
    """
    size = 2 * _ROWS.value * _WIDTH.value
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(folder), str(size)],
        check=True,
        capture_output=True,
        text=True,
    )
    *lines, memory = done.stdout.splitlines()[-4:]
    words = ("memory filled", "index opened", "vectors read")
    for word, line in zip(words, lines, strict=True):
        seconds, processor = map(float, line.split())
        print(f"{word} in {seconds:.2f} s, {processor:.2f} s of the processor")
    print(f"memory {float(memory):.2f} of the vectors")


def compare_stores(folder):
    """Reading all vectors, and an exact query, by the store."""
    import pyarrow as arrow
    from pyarrow import parquet

    from vivi_keras.archive import store

    vectors = np.concatenate([*blocks(_ROWS.value, _WIDTH.value)])
    vectors = vectors.astype(np.float16)
    count, width = vectors.shape
    lists = arrow.FixedSizeListArray.from_arrays(
        arrow.Array.from_buffers(
            arrow.float16(), vectors.size, [None, arrow.py_buffer(vectors)]
        ),
        width,
    )
    tables = {
        "Parquet, bytes": arrow.table({"vector": store.to_arrow(vectors)}),
        "Parquet, lists": arrow.table({"vector": lists}),
    }
    for name, table in tables.items():
        file = folder / f"{name}.parquet"
        written, _ = seconds_of(
            lambda t=table, f=file: parquet.write_table(
                t, f, compression="none", use_dictionary=False
            )
        )
        times = [
            seconds_of(lambda f=file: _numpy(parquet.read_table(f), width))[0]
            for _ in range(3)
        ]
        print(f"{name}: written in {written:.2f} s, read in {min(times):.2f} s")
    try:
        import lancedb
    except ImportError:
        print("LanceDB: not installed")
        return
    base = lancedb.connect(str(folder / "lance"))
    written, table = seconds_of(
        lambda: base.create_table("vectors", tables["Parquet, lists"])
    )
    times = [
        seconds_of(lambda: base.open_table("vectors").to_arrow())[0]
        for _ in range(3)
    ]
    query = vectors[0] + np.float16(0.01)
    asked = [
        seconds_of(
            lambda: (
                table.search(query, vector_column_name="vector")
                .distance_type("cosine")
                .limit(10)
                .to_arrow()
            )
        )[0]
        for _ in range(3)
    ]
    print(
        f"LanceDB: written in {written:.2f} s, read in {min(times):.2f} s,"
        f" exact query in {1000 * min(asked):.0f} ms"
    )
    from usearch.index import MetricKind, search

    asked = [
        seconds_of(
            lambda: search(vectors, query, 10, MetricKind.Cos, exact=True)
        )[0]
        for _ in range(3)
    ]
    print(f"usearch: exact query in {1000 * min(asked):.0f} ms")
    asked = [seconds_of(lambda: _by_numpy(vectors, query))[0] for _ in range(3)]
    print(f"NumPy, block by block: exact query in {1000 * min(asked):.0f} ms")


def _numpy(table, width):
    column = table["vector"].combine_chunks()
    if hasattr(column, "flatten"):
        return column.flatten().to_numpy().reshape(-1, width)
    return np.frombuffer(column.buffers()[1], "<f2").reshape(-1, width)


def _by_numpy(vectors, query):
    scores = np.concatenate(
        [
            vectors[start : start + 4096].astype(np.float32)
            @ query.astype(np.float32)
            for start in range(0, len(vectors), 4096)
        ]
    )
    return np.argpartition(-scores, 10)[:10]


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    aside = tempfile.mkdtemp() if _FOLDER.value is None else None
    folder = pathlib.Path(aside or _FOLDER.value)
    try:
        if _STORES.value:
            compare_stores(folder)
            return
        if not (folder / "index" / "index.json").exists():
            seconds, _ = seconds_of(lambda: write_index(folder / "index"))
            print(f"{_ROWS.value} rows written in {seconds:.0f} s", flush=True)
        compare_opening(folder / "index")
        compare_search(folder / "index")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"peak memory of all of it: {peak:.1f} GiB")
    finally:
        if aside is not None:
            shutil.rmtree(aside)


if __name__ == "__main__":
    app.run(main)
