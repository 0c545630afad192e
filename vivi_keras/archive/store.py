"""The files of an index: Parquet tables, and `index.json`, which lists them.

    index.json               module, data set, settings, and the parts
    parts/00001.frames.parquet    a row per frame, with its vector
    parts/00001.shots.parquet     a row per shot, with the mean of its frames
    records.parquet          a row per record of the data set, by number
    approximate.faiss        lists for approximate search, if they were built

A part is valid once `index.json` names it: a killed run leaves a valid index.
Vectors are stored as the bytes of little-endian float16: Parquet reads such
columns six times as fast as lists of numbers (`benchmarks/search.py`).
"""

import importlib
import logging
import pathlib

import numpy as np

from vivi_keras import files

MANIFEST = "index.json"
FORMAT = 1
RECORDS = "records.parquet"
_BATCH_ROWS = 16_384


def import_extra(name):
    """Imports a library of the extra `archive`.

    Raises: ImportError: it is not installed; the message says how to install.
    """
    # faiss logs which builds of itself it tries.
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"an index needs {name.split('.')[0]}, which is not installed:"
            " pip install 'vivi-keras[archive]'"
        ) from error


class Store:
    """The files of one index.

    Args:
        folder: folder of the index.
        manifest: dict of index.json.
    """

    def __init__(self, folder, manifest):
        self.folder, self.manifest = pathlib.Path(folder), manifest

    @property
    def num_features(self):
        return self.manifest["num_features"]

    @property
    def size(self):
        """(height, width) that frames are resized to, in pixels."""
        return self.manifest["image_size"]

    @property
    def parts(self):
        """The parts in order: dicts of "name", "frames" and "shots"."""
        return self.manifest["parts"]

    def save(self):
        """Writes index.json, whole or not at all."""
        files.write_json(self.folder / MANIFEST, self.manifest)

    def clean(self):
        """Deletes files of parts that index.json does not name."""
        names = {part["name"] for part in self.parts}
        for path in (self.folder / "parts").glob("*"):
            if path.name.split(".")[0] not in names:
                path.unlink()

    def next_number(self):
        """A number above those of all parts."""
        numbers = [int(path.name[:5]) for path in self._files()]
        return 1 + max(numbers, default=0)

    def write_part(self, frames, shots, name=None):
        """Writes two tables as a new part; returns its entry, not yet listed.

        Args:
            frames, shots: pyarrow tables, frames in the order of the shots.
            name: text of a number that no other part has; None for the next.
        """
        parquet = import_extra("pyarrow.parquet")
        name = name or f"{self.next_number():05d}"
        for kind, table in (("frames", frames), ("shots", shots)):
            with files.write_whole(self._path(name, kind)) as partial:
                parquet.write_table(
                    table,
                    partial,
                    # float16 vectors do not compress.
                    compression={
                        column: "none" if column == "vector" else "zstd"
                        for column in table.column_names
                    },
                    use_dictionary=["video"],
                    write_statistics=False,
                    row_group_size=_BATCH_ROWS,
                )
        return {"name": name, "frames": len(frames), "shots": len(shots)}

    def _files(self):
        return (self.folder / "parts").glob("*.parquet")

    def _path(self, name, kind):
        return self.folder / "parts" / f"{name}.{kind}.parquet"

    def read_part(self, part, kind, columns=None):
        """A part's table "frames" or "shots".

        Raises: ValueError: a file is missing or damaged; the message names it.
        """
        parquet = import_extra("pyarrow.parquet")
        path = self._path(part["name"], kind)
        with _damaged(path):
            table = parquet.read_table(path, columns=columns)
        if len(table) != part[kind]:
            raise ValueError(
                f"{path} must have {part[kind]} rows. Got: {len(table)}. Embed"
                " the archive again."
            )
        return table

    def read(self, kind, columns):
        """Columns of a table of all parts, as NumPy arrays.

        Args:
            kind: "frames" or "shots".
            columns: names.
        Returns: dict name -> array [N].
        """
        arrow = import_extra("pyarrow")
        tables = [self.read_part(part, kind, columns) for part in self.parts]
        if not tables:
            return {name: np.zeros(0, np.int64) for name in columns}
        table = arrow.concat_tables(tables)
        return {name: table[name].to_numpy() for name in columns}

    def vectors(self, kind):
        """The vectors of a table of all parts: float16 [N, D].

        They are read batch by batch into one array, so that memory never
        holds them twice.
        """
        parquet = import_extra("pyarrow.parquet")
        total = sum(part[kind] for part in self.parts)
        vectors, start = np.empty((total, self.num_features), np.float16), 0
        for part in self.parts:
            path, stop = self._path(part["name"], kind), start + part[kind]
            with _damaged(path), parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=["vector"]):
                    rows = to_numpy(batch.column(0), self.num_features)
                    vectors[start : start + len(rows)] = rows
                    start += len(rows)
            if start != stop:
                raise ValueError(
                    f"{path} must have {part[kind]} rows. Got:"
                    f" {start - stop + part[kind]}. Embed the archive again."
                )
        return vectors

    def drop(self, is_stale):
        """Rewrites the parts without the rows of some records.

        Args:
            is_stale: function of video ids int64 [N] and first shots of
                records int64 [N] -> bool [N].
        Returns: number of frames dropped.
        """
        dropped = 0
        for part in list(self.parts):
            tables, keep = {}, {}
            for kind in ("frames", "shots"):
                tables[kind] = table = self.read_part(part, kind)
                keys = (table["video_id"], table["first_shot"])
                keep[kind] = ~is_stale(*(key.to_numpy() for key in keys))
            if keep["frames"].all():
                continue
            dropped += int((~keep["frames"]).sum())
            place = self.parts.index(part)
            self.parts[place : place + 1] = (
                [self.write_part(*(tables[k].filter(keep[k]) for k in tables))]
                if keep["frames"].any()
                else []
            )
            self.save()
        self.clean()
        return dropped

    def write_records(self, table):
        parquet = import_extra("pyarrow.parquet")
        with files.write_whole(self.folder / RECORDS) as partial:
            parquet.write_table(table, partial)

    def read_records(self):
        """Dict name -> array [R], or None if no run has finished."""
        parquet, path = import_extra("pyarrow.parquet"), self.folder / RECORDS
        if not path.exists():
            return None
        with _damaged(path):
            table = parquet.read_table(path)
        return {name: table[name].to_numpy() for name in table.column_names}


def open_store(folder):
    """Opens the files of an index.

    Raises: ValueError: it is not an index, or is damaged.
    """
    folder = pathlib.Path(folder)
    manifest = files.read_json(folder / MANIFEST)
    if manifest is None:
        raise ValueError(
            f"index must be a folder written by vivi-embed. Got: {folder},"
            f" which has no {MANIFEST}"
        )
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(
            f"{folder / MANIFEST} must be of format {FORMAT}, as this version"
            " of vivi-embed writes it. Embed the archive again."
        )
    return Store(folder, manifest)


class _damaged:
    """Turns pyarrow's errors into a ValueError that names the file."""

    def __init__(self, path):
        self._path = path

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        arrow = import_extra("pyarrow")
        if isinstance(error, (arrow.ArrowException, FileNotFoundError)):
            raise ValueError(
                f"{self._path} is missing or damaged: {error}. Embed the"
                " archive again."
            ) from error


def to_arrow(vectors):
    """float [N, D] -> a pyarrow array of N values of 2 D bytes."""
    arrow = import_extra("pyarrow")
    vectors = np.ascontiguousarray(vectors, "<f2")
    return arrow.FixedSizeBinaryArray.from_buffers(
        arrow.binary(2 * vectors.shape[1]),
        len(vectors),
        [None, arrow.py_buffer(vectors)],
    )


def to_numpy(array, num_features):
    """The opposite of `to_arrow`; the result is float16 [N, D], read-only."""
    start = 2 * num_features * array.offset
    return np.frombuffer(
        array.buffers()[1], "<f2", len(array) * num_features, start
    ).reshape(len(array), num_features)
