"""Films of coloured shots, the data set of them, indexes of given vectors."""

import av
import numpy as np

from vivi_keras import archive, prepare
from vivi_keras.archive import embedding, sources, store

COLOURS = {
    "red": (210, 40, 40),
    "green": (40, 190, 50),
    "blue": (40, 50, 210),
}
RATE, SHOT_FRAMES = 12, 18
# The colours of each film's shots, each of 1.5 seconds.
FILMS = {
    "a.mp4": ("red", "green", "blue"),
    "deep/b.mp4": ("green", "red", "green", "blue"),
    "c ü.mp4": ("blue", "red"),
    "d.mp4": ("green", "blue", "red"),
}


def film(path, colours, seed):
    """A film with one shot a colour: a texture that drifts, not square."""
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for colour in colours:
            texture = generator.integers(-40, 40, (6, 10, 1))
            texture = np.kron(texture, np.ones((8, 8, 1)))
            for step in range(SHOT_FRAMES):
                image = np.add(COLOURS[colour], texture[:, step // 2 :][:, :64])
                frame = av.VideoFrame.from_ndarray(
                    np.clip(image, 0, 255).astype(np.uint8), format="rgb24"
                )
                file.mux(stream.encode(frame))
        file.mux(stream.encode())


def made_films(folder, names=FILMS):
    for name in names:
        film(folder / name, FILMS[name], [*FILMS].index(name))


def prepared(films, data, **settings):
    prepare.prepare(
        films, data, short_side=48, frames_per_second=2.0, **settings
    )


def embed(folder, **options):
    options = {"dataset": folder / "data", **options}
    return archive.embed(folder / "module", folder / "index", **options)


def rows(index):
    """Every frame's row, with its vector and its shot's, by what it is of."""
    frame = index.frames.merge(
        index.shots[["start_seconds", "stop_seconds"]],
        left_on="shot_row",
        right_index=True,
    )
    names = ["video", "shot", "place", "seconds", "start_seconds"]
    keys = [tuple(row) for row in frame[[*names, "stop_seconds"]].to_numpy()]
    vectors = np.concatenate(
        [index.vectors, index.shot_vectors[frame["shot_row"]]], axis=1
    )
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, vectors.astype(np.float32), strict=True))


def check_same(index, other):
    """That two indexes have the same rows, in any order."""
    got, wanted = rows(index), rows(other)
    assert set(got) == set(wanted)
    for key, vector in got.items():
        # In another batch, the last digits of a feature may differ.
        np.testing.assert_allclose(vector, wanted[key], rtol=2e-3, atol=1e-4)


def write_index(folder, vectors, counts, part_shots=4, per_video=3):
    """An index of given vectors: `counts` frames a shot, 1 s a frame."""
    parts = store.Store(
        folder,
        {
            "format": store.FORMAT,
            "module": {"path": "module", "name": "module", "sha256": "0"},
            "source": {"kind": "dataset", "path": "no", "settings": None},
            "videos": None,
            "image_size": [32, 32],
            "num_features": vectors.shape[1],
            "parts": [],
            "unfinished": None,
            "complete": True,
            "approximate": None,
        },
    )
    writer, place = embedding._Writer(parts), 0
    for number, count in enumerate(counts):
        video, shot = divmod(number, per_video)
        start = 10.0 * shot
        writer.add(
            sources.Shot(
                f"{video}.mp4",
                video,
                0,
                shot,
                start,
                start + 10.0,
                list(range(count)),
                [start + step for step in range(count)],
                [None] * count,
            ),
            vectors[place : place + count],
        )
        place += count
        if number % part_shots == part_shots - 1:
            writer.flush(None)
    writer.flush(None)
    return archive.open_index(folder)
