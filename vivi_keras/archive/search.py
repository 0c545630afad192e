"""Search by an image or a frame of a video; results as a table and a page."""

import dataclasses
import os
import pathlib

import numpy as np

from vivi_keras import files, pages
from vivi_keras.archive import embedding, sources
from vivi_keras.archive import pictures as pictures_lib
from vivi_keras.archive.pictures import clock
from vivi_keras.features import encoder as encoder_lib
from vivi_keras.video import decode


def read_image(path):
    """An image file as uint8 [h, w, 3], shrunk like the frames of the index.

    Raises: ValueError: it cannot be read; the message names it.
    """
    if not os.path.isfile(path):
        raise ValueError(f"image must be a file. Got: {path}, not a file")
    try:
        return sources.read_image(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"image must be an image that can be read. Got: {path}: {error}"
        ) from error


def read_frame(path, seconds, short_side=sources.SHORT_SIDE):
    """The frame that a video shows at a time: uint8 [h, w, 3].

    The video is decoded from its start, since seeking gives wrong frames in
    too many files.

    Raises: ValueError: the video cannot be read, or ends before that time.
    """
    if not os.path.isfile(path):
        raise ValueError(f"video must be a file. Got: {path}, not a file")
    if not seconds >= 0:
        raise ValueError(f"seconds must be 0 or more. Got: {seconds}")
    try:
        with decode.Video(os.fspath(path)) as video:
            held = None
            for frame in video.frames():
                if held is not None and frame.time_seconds > seconds:
                    break
                held = frame
            else:
                if seconds >= video.end_seconds:
                    raise ValueError(
                        f"seconds must be in the video {path}, which is"
                        f" {video.end_seconds:.2f} s long. Got: {seconds}"
                    )
            aspect = video.sample_aspect_ratio
            return decode.to_bgr(held.picture, aspect, short_side)[..., ::-1]
    except decode.VideoError as error:
        raise ValueError(
            f"video must be a video that can be read. Got: {path}: {error}"
        ) from error


def open_encoder(index, module=None):
    """The encoder of an index.

    Args:
        index: `index.Index`.
        module: the module's folder if it was moved; None if it was not.
    Raises: ValueError: the module is missing, or is not that of the index.
    """
    place = index.manifest["module"]["path"]
    if module is None and not pathlib.Path(place).is_dir():
        raise ValueError(
            f"the index's module must be in {place}. Got: no such folder. Say"
            " where it is with --module."
        )
    encoder = embedding.open_encoder(place if module is None else module)
    embedding.check_module(index.manifest, encoder)
    return encoder


def vector(encoder, index, image):
    """Features float32 [D] of a uint8 image [h, w, 3] by an index's module."""
    size = tuple(index.manifest["image_size"])
    images = encoder_lib.resize_images(np.asarray(image)[None], size)
    return encoder.features(images)[0]


def rows(hits):
    """Hits as a list of dicts for JSON, without row numbers."""
    kept = [dataclasses.asdict(hit) for hit in hits]
    return [
        {k: v for k, v in row.items() if k not in ("row", "shot_row")}
        for row in kept
    ]


def table(hits):
    """Lines for the terminal: score, video, start-stop, best second."""
    if not hits:
        return ["no shot was found: the index is empty"]
    width = max(len(hit.video) for hit in hits)
    return [f"{'score':6}  {'video':{width}}  {'shot':15}  best second"] + [
        f"{hit.score:6.3f}  {hit.video:{width}}"
        f"  {_span(hit):15}  {hit.seconds:.2f}"
        for hit in hits
    ]


def _span(hit):
    return f"{clock(hit.start_seconds)}-{clock(hit.stop_seconds)}"


def notes(index, hits, videos=None):
    """What a user should know about an answer: list of sentences."""
    found = []
    if not index.is_complete():
        found.append("vivi-embed has not finished: shots may be missing.")
    moved = {hit.video for hit in hits} - {
        hit.video for hit in hits if index.video_path(hit.video, videos)
    }
    if moved:
        found.append(
            f"not found, so without links: {', '.join(sorted(moved)[:5])}"
            f"{' and more' if len(moved) > 5 else ''}; say with --videos in"
            " which folder they are"
        )
    return found


def write(path, index, hits, query, image, videos=None):
    """Writes the HTML page of a search.

    Args:
        path: file to write.
        index: `index.Index`.
        hits: list of `index.Hit`.
        query: the query as text.
        image: the query, uint8 [h, w, 3], or None.
        videos: folder of the video files; None for that of the index.
    """
    pictures = pictures_lib.Pictures(index)
    shown = [
        {
            "picture": pictures.get(hit.row),
            "link": pictures_lib.link(
                index.video_path(hit.video, videos),
                path,
                hit.start_seconds,
                hit.stop_seconds,
            ),
            "score": f"{hit.score:.3f}",
            "video": hit.video,
            "time": _span(hit) if hit.stop_seconds > 0 else "",
        }
        for hit in hits
    ]
    lines = notes(index, hits, videos)
    if pictures.missing is not None:
        lines.append(pictures.missing)
    page = pages.render(
        "search.html",
        query=query,
        picture=None if image is None else pictures_lib.query_picture(image),
        notes=lines,
        hits=shown,
    )
    files.write_text(path, page)
