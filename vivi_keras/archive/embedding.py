"""Embeds the frames of an archive: features of each frame and each shot."""

import collections
import functools
import os
import pathlib
import time
import uuid

import numpy as np
import tqdm

from vivi_keras import checks, files
from vivi_keras.archive import sources as sources_lib
from vivi_keras.archive import store as store_lib
from vivi_keras.data.batches import DUPLICATES
from vivi_keras.features import encoder as encoder_lib

# A part is written after this many frames or seconds; a killed run loses at
# most one. [O]
PART_FRAMES = 8192
PART_SECONDS = 300.0
DEFAULT_IMAGE_SIZE = 224
_MOST = float(np.finfo(np.float16).max)


def embed(
    module,
    output,
    *,
    dataset=None,
    images=None,
    videos=None,
    image_size=None,
    batch_size=64,
    beam_options=None,
    show_progress=False,
):
    """Writes an index: features of every stored frame, and of every shot.

    Called again, it continues a stopped run. If the data set was rebuilt, only
    new videos are embedded, and removed ones are dropped.
    Memory does not grow with the archive.

    Args:
        module: folder of a SavedModel that maps images to features, or the
            name of a registered module.
        output: folder of the index.
        dataset: folder of a data set that vivi-prepare wrote.
        images: folder of images, in place of `dataset`.
        videos: folder of the video files, for links that play them; None for
            the one of an earlier call, or if paths are absolute.
        image_size: height and width in pixels to which frames are resized;
            None for what the module recommends, or 224 if it says nothing.
        batch_size: number of frames encoded at once.
        beam_options: text, options of Apache Beam such as
            "runner=FlinkRunner,flink_master=HOST:8081". The workers of a
            cluster then embed the data set; the rows are the same. None to
            embed it in this process.
        show_progress: draw a progress bar.

    Returns: dict of "videos", "shots" and "frames" in the index,
        "frames_added", "frames_dropped", "skipped" (name -> reason) and
        "frames_per_second".

    Raises:
        ValueError: an argument is wrong, the index is of another module or
            data set, or a frame is damaged.
        ImportError: the extra `archive` or `beam` is not installed.
        OSError: the index cannot be written.

    >>> done = archive.embed("vivi-r14w025-film/1", "index", dataset="data")
    >>> done["videos"], done["shots"], done["frames"]
    (4, 12, 24)
    """
    for name in ("pyarrow", "pandas", "usearch"):
        store_lib.import_extra(name)
    if (dataset is None) == (images is None):
        raise ValueError(
            "one of dataset and images must be given. Got:"
            f" dataset={dataset!r}, images={images!r}"
        )
    if beam_options is not None and images is not None:
        raise ValueError(
            "dataset must be given with beam_options. Got: images, which are"
            " embedded by one process"
        )
    checks.check_whole("batch_size", batch_size, 1, 100_000)
    if image_size is not None:
        checks.check_whole("image_size", image_size, 8, 10_000)
    output = pathlib.Path(output)
    if output.exists() and not output.is_dir():
        raise ValueError(f"output must be a folder. Got: {output}, a file")
    if videos is not None and not os.path.isdir(videos):
        raise ValueError(f"videos must be a folder. Got: {videos}")
    encoder = open_encoder(module)
    source = (
        sources_lib.DatasetSource(dataset)
        if images is None
        else sources_lib.ImageSource(images)
    )
    with files.locked(output, ".lock"):
        store = _open(output, encoder, source, image_size)
        if videos is not None:
            store.manifest["videos"] = os.path.abspath(videos)
        return _run(
            store, encoder, source, batch_size, beam_options, show_progress
        )


def open_encoder(module):
    """An `Encoder` of a module's folder or registered name."""
    from vivi_keras.models import registry

    return encoder_lib.load_encoder(registry.find(str(module)))


def check_module(manifest, encoder):
    """Raises ValueError unless the index was made with this encoder."""
    if manifest["module"]["sha256"] != encoder.digest:
        raise ValueError(
            "the index must be of the module given. Got: an index of module"
            f" {manifest['module']['path']} with hash"
            f" {manifest['module']['sha256']}, and module {encoder.path} with"
            f" hash {encoder.digest}"
        )


def _open(output, encoder, source, image_size):
    """The `Store` to write to: that of `output` if it fits, or a new one."""
    if (output / store_lib.MANIFEST).exists():
        store = store_lib.open_store(output)
        check_module(store.manifest, encoder)
        _check_source(store, source)
        size = store.manifest["image_size"]
        if image_size is not None and size != [image_size] * 2:
            raise ValueError(
                f"image_size must be that of the index {output}, {size}. Got:"
                f" image_size={image_size}"
            )
        return store
    if any(path.name != ".lock" for path in output.iterdir()):
        raise ValueError(
            "output must be a new folder or an index. Got:"
            f" {output}, which holds other files"
        )
    size = encoder.size_for(_image_size(encoder, image_size))
    empty = np.zeros((1, *size, 3), np.float32)
    return store_lib.Store(
        output,
        {
            "format": store_lib.FORMAT,
            "module": {
                "path": os.path.abspath(encoder.path),
                "name": encoder.name,
                "sha256": encoder.digest,
            },
            "source": _describe(source),
            "videos": None,
            "image_size": list(size),
            "num_features": encoder.features(empty).shape[1],
            "parts": [],
            "unfinished": None,
            "complete": False,
            "approximate": None,
        },
    )


def _image_size(encoder, wanted):
    if wanted is not None:
        return wanted
    metadata = encoder.describe()["metadata"] or {}
    return metadata.get("image_size", [DEFAULT_IMAGE_SIZE])[0]


def _describe(source):
    return {
        "kind": source.kind,
        "path": source.path,
        "fingerprint": source.fingerprint,
        "settings": source.settings,
    }


def _check_source(store, source):
    """Raises ValueError if the index is of another data set."""
    stored = store.manifest["source"]
    if stored["fingerprint"] == source.fingerprint:
        return
    why = None
    if (stored["kind"], stored["settings"]) != (source.kind, source.settings):
        why = "another kind of source, or other settings of vivi-prepare"
    elif store.parts:
        known = set(store.read("shots", ["video_id"])["video_id"].tolist())
        if not known & source.video_ids():
            why = "no video is in both"
    if why is not None:
        raise ValueError(
            f"the index {store.folder} must be of the data set given. Got: an"
            f" index of {stored['path']} with fingerprint"
            f" {stored['fingerprint']}, and {source.path} with fingerprint"
            f" {source.fingerprint}: {why}"
        )


def _run(store, encoder, source, batch_size, beam_options, show_progress):
    manifest, start = store.manifest, time.monotonic()
    same = manifest["source"]["fingerprint"] == source.fingerprint
    manifest["source"] = _describe(source)
    added = dropped = 0
    if not (same and manifest["complete"]):
        manifest["complete"] = False
        store.save()
        if beam_options is not None:
            from vivi_keras.archive import beam

            embed_range = functools.partial(
                _embed_range,
                output=str(store.folder),
                dataset=source.path,
                fingerprint=source.fingerprint,
                module=os.path.abspath(encoder.path),
                batch_size=batch_size,
                run=uuid.uuid4().hex,
            )
            added = beam.embed(store, source, embed_range, beam_options)
        store.clean()
        entries = {}
        added += _embed(
            store, encoder, source, batch_size, entries, show_progress
        )
        dropped = _drop(store, entries)
        if added or dropped:  # a list of duplicates would not be complete
            (store.folder / DUPLICATES).unlink(missing_ok=True)
        _write_records(store, entries)
        manifest["complete"] = True
    store.save()
    seconds = time.monotonic() - start
    return {
        "videos": len({record[0] for record in _done_records(store)}),
        "shots": sum(part["shots"] for part in store.parts),
        "frames": sum(part["frames"] for part in store.parts),
        "frames_added": added,
        "frames_dropped": dropped,
        "skipped": dict(source.skipped),
        "frames_per_second": added / seconds,
    }


def _embed_range(item, output, dataset, fingerprint, module, batch_size, run):
    """Embeds the records [start, stop) that are not in the index."""
    name, start, stop = item
    store, encoder, source, done = _opened(output, dataset, module, run)
    if source.fingerprint != fingerprint:
        raise ValueError(
            f"{dataset} must be the same data set on every worker. Got:"
            f" fingerprint {source.fingerprint}, not {fingerprint}"
        )
    check_module(store.manifest, encoder)
    shots = source.range(start, stop, done)
    found = [*features(shots, encoder, store.size, batch_size)]
    if not found:
        return
    entry = store.write_part(*tables(*zip(*found, strict=True)), name)
    files.write_json(
        store.folder / "parts" / f"{name}.json",
        {**entry, "fingerprint": fingerprint},
    )


@functools.lru_cache(maxsize=1)
def _opened(output, dataset, module, run):
    """What all ranges of a worker need, opened once per run and process."""
    store = store_lib.open_store(output)
    return (
        store,
        open_encoder(module),
        sources_lib.DatasetSource(dataset),
        _done_records(store),
    )


def _done_records(store):
    """The set of (video id, first shot) of the records in the index."""
    rows = store.read("shots", ["video_id", "first_shot"])
    return set(
        zip(rows["video_id"].tolist(), rows["first_shot"].tolist(), strict=True)
    )


def _embed(store, encoder, source, batch_size, entries, show_progress):
    """Embeds the records that are not in the index; returns how many frames.

    Args:
        entries: dict, filled with number -> (record, name) of every record.
    """
    done = collections.defaultdict(set)
    for video_id, first in _done_records(store):
        done[video_id].add(first)
    unfinished = store.manifest["unfinished"]

    def shots():
        for number, record, name, found in source.records(done, unfinished):
            entries[number] = record, name
            progress.update(number + 1 - progress.n)
            if found is not None:
                yield from found

    writer = _Writer(store)
    with tqdm.tqdm(
        total=len(source), disable=not show_progress, unit=" records"
    ) as progress:
        try:
            for shot, found in features(
                shots(), encoder, store.size, batch_size
            ):
                writer.add(shot, found)
            writer.flush(None)
        except KeyboardInterrupt:
            writer.stop()
            raise
    return writer.num_frames


def features(shots, encoder, size, batch_size):
    """Yields (shot, float32 [frames, D]) in order, decoding ahead."""
    import tensorflow as tf

    pending, failures = collections.deque(), []

    def images():
        try:
            for shot in shots:
                pending.append(shot)
                # Each step of a generator is slow: JPEGs come shot by shot.
                yield from ([shot.images] if encoded else shot.images)
        except Exception as error:  # TensorFlow would wrap it
            failures.append(error)

    first = next(shots, None)
    if first is None:
        return
    shots = _chained(first, shots)
    encoded = isinstance(first.images[0], bytes)
    spec = tf.TensorSpec([None, None, 3], tf.uint8)
    if encoded:
        spec = tf.TensorSpec([None], tf.string)
    frames = tf.data.Dataset.from_generator(images, output_signature=spec)
    batches = (
        (frames.unbatch() if encoded else frames)
        .map(
            lambda image: _resized(image, size, encoded),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .batch(batch_size)
        .prefetch(2)
    )
    ready = []
    try:
        for batch in batches:
            ready.extend(_checked(encoder, batch.numpy(), pending))
            while pending and len(pending[0].images) <= len(ready):
                shot = pending.popleft()
                count = len(shot.images)
                yield shot, np.stack(ready[:count])
                del ready[:count]
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(_damaged(pending, error)) from error
    if failures:
        raise failures[0]


def _chained(first, rest):
    yield first
    yield from rest


def _resized(image, size, encoded):
    """A frame as evaluation resizes it: float32 [*size, 3] in [0, 1]."""
    import tensorflow as tf

    if encoded:
        image = tf.io.decode_jpeg(image, channels=3)
    image = tf.cast(image, tf.float32) / 255.0
    return tf.ensure_shape(tf.image.resize(image, size), [*size, 3])


def _checked(encoder, images, pending):
    """Features of a batch; an error names the videos of its frames."""
    try:
        features = encoder.features(images)
    except encoder_lib.CannotScore as error:
        names = sorted({shot.video for shot in list(pending)})
        raise ValueError(f"{error}, for a frame of {names[:5]}.") from error
    most = float(np.abs(features).max())
    if most > _MOST:
        raise ValueError(
            f"features must be at most {_MOST}, to be kept as float16. Got:"
            f" {most} from module {encoder.path}"
        )
    return features


def _damaged(pending, error):
    """Says which frame cannot be decoded."""
    import tensorflow as tf

    for shot in list(pending):
        for seconds, image in zip(shot.seconds, shot.images, strict=True):
            try:
                tf.io.decode_jpeg(image, channels=3)
            except tf.errors.InvalidArgumentError:
                return (
                    f"the frame at {seconds:.2f} s of {shot.video} in the data"
                    " set is damaged; prepare the data set again"
                )
    return checks.reason(error)


class _Writer:
    """Collects rows and writes them as parts of whole records."""

    def __init__(self, store):
        self._store = store
        self._shots, self._features = [], []
        self._started = time.monotonic()
        self.num_frames = 0
        self.last_video = None

    def add(self, shot, features):
        is_new = not self._shots or shot.record != self._shots[-1].record
        if is_new and (
            sum(map(len, self._features)) >= PART_FRAMES
            or time.monotonic() - self._started > PART_SECONDS
        ):
            same = shot.video_id == self.last_video
            self.flush(self.last_video if same else None)
        shot.images = None  # frees the memory
        self._shots.append(shot)
        self._features.append(features)
        self.last_video = shot.video_id
        self.num_frames += len(features)

    def stop(self):
        """Writes all but the last video, which may be incomplete."""
        while self._shots and self._shots[-1].video_id == self.last_video:
            self._shots.pop()
            self._features.pop()
        self.flush(self._store.manifest["unfinished"])

    def flush(self, unfinished):
        """Writes a part; `unfinished`: id of a video to continue, or None."""
        self._store.manifest["unfinished"] = unfinished
        if self._shots:
            self._store.parts.append(
                self._store.write_part(*tables(self._shots, self._features))
            )
        self._store.save()
        self._shots, self._features = [], []
        self._started = time.monotonic()


def tables(shots, features):
    """The tables of frames and of shots, as pyarrow tables."""
    arrow = store_lib.import_extra("pyarrow")
    counts = [len(each) for each in features]

    def of_frames(values, kind):
        return arrow.array(np.repeat(np.array(values), counts), kind)

    ids = [s.video_id for s in shots]
    firsts = [s.first_shot for s in shots]
    numbers = [s.index for s in shots]
    frames = {
        "video_id": of_frames(ids, arrow.int64()),
        "first_shot": of_frames(firsts, arrow.int64()),
        "shot": of_frames(numbers, arrow.int64()),
        "place": arrow.array(np.concatenate([s.places for s in shots])),
        "seconds": arrow.array(
            np.concatenate([s.seconds for s in shots]), arrow.float64()
        ),
        "vector": store_lib.to_arrow(np.concatenate(features)),
    }
    means = np.stack([each.mean(axis=0) for each in features])
    return arrow.table(frames), arrow.table(
        {
            "video": [s.video for s in shots],
            "video_id": arrow.array(ids, arrow.int64()),
            "first_shot": arrow.array(firsts, arrow.int64()),
            "shot": arrow.array(numbers, arrow.int64()),
            "start_seconds": [s.start_seconds for s in shots],
            "stop_seconds": [s.stop_seconds for s in shots],
            "num_frames": counts,
            "vector": store_lib.to_arrow(means),
        }
    )


def _drop(store, entries):
    """Drops rows of records that are no longer in the data set."""
    known = {record for record, _ in entries.values()}
    if _done_records(store) <= known:
        return 0

    def is_stale(video_ids, firsts):
        pairs = zip(video_ids.tolist(), firsts.tolist(), strict=True)
        return np.array([pair not in known for pair in pairs], bool)

    return store.drop(is_stale)


def _write_records(store, entries):
    arrow = store_lib.import_extra("pyarrow")
    rows = [entries[number] for number in sorted(entries)]
    store.write_records(
        arrow.table(
            {
                "number": arrow.array(sorted(entries), arrow.int64()),
                "video_id": arrow.array([r[0] for r, _ in rows], arrow.int64()),
                "first_shot": arrow.array(
                    [r[1] for r, _ in rows], arrow.int64()
                ),
                "video": arrow.array([n for _, n in rows], arrow.string()),
            }
        )
    )
