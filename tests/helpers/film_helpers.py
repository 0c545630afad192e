"""Films and folders of frames, made here; data sets read back."""

import fractions
import sys

import av
import numpy as np

from vivi_keras.demo import corpus

WIDTH, HEIGHT, COUNT = 96, 64, 24

TICK = fractions.Fraction(1, 12)

COLOURS = [(220, 40, 40), (40, 200, 40), (40, 60, 220), (200, 200, 40)]

COMMAND = [sys.executable, "-m", "vivi_keras.training.prepare"]


def quadrants(index=0, width=WIDTH, height=HEIGHT):
    """Four colours, so that a turn or a swap of channels shows."""
    image = np.zeros((height, width, 3), np.uint8)
    for place, colour in enumerate(COLOURS):
        top, left = divmod(place, 2)
        rows = slice(top * height // 2, (top + 1) * height // 2)
        columns = slice(left * width // 2, (left + 1) * width // 2)
        image[rows, columns] = colour
    image[:4, : 4 + 2 * index] = 255
    return image


def write(
    path,
    codec="libx264",
    pixels="yuv420p",
    size=(WIDTH, HEIGHT),
    stamps=None,
    prepare=None,
    options=None,
    count=COUNT,
    noise=None,
):
    """A file of `count` frames; stamps in twelfths of a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=12, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if prepare is not None:
            prepare(stream)
        for index in range(count):
            image = quadrants(index, *size)
            if noise is not None:
                image += noise.integers(0, 30, image.shape, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format=pixels)
            if stamps is not None:
                stream.codec_context.time_base = TICK
                frame.time_base, frame.pts = TICK, stamps[index]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def write_sound(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        stream.layout = "mono"
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 44100, 1024 * index
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def render(
    path,
    seed,
    num_frames=60,
    size=(64, 48),
    cuts=(20, 40),
    rate=12,
    stamps=None,
):
    """A film of one plain-textured scene per shot; stamps in 1 / rate s."""
    rng = np.random.default_rng(seed)
    width, height = size
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        for index in range(num_frames):
            if index in (0, *cuts):
                image = rng.integers(0, 256, (6, 8, 3), np.uint8)
                image = np.kron(image, np.ones((height // 6, width // 8, 1)))
            frame = av.VideoFrame.from_ndarray(
                image.astype(np.uint8), format="rgb24"
            )
            if stamps is not None:
                frame.pts = int(stamps[index])
                frame.time_base = fractions.Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def read(dataset):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(dataset))
    return list(builder.as_data_source(split="train"))


def by_path(report):
    return {f["path"]: f for f in report["files"]}


def images(path, count, seed):
    import cv2

    rng = np.random.default_rng(seed)
    shape = (40, 56, 3)
    for index in range(count):
        if index % 5 == 0:
            image = np.full(shape, rng.integers(0, 255, 3), np.uint8)
            image[: 5 + index] = rng.integers(0, 255, 3)
        cv2.imwrite(str(path / f"frame{index}.png"), image)


def render_smallest_corpus(folder):
    """Four demo films of three shots of a second."""
    corpus.render_corpus(
        folder,
        num_films=4,
        seed=5,
        num_shots=(3, 3),
        shot_seconds=(1.0, 1.0),
        dissolve_share=0.0,
    )
