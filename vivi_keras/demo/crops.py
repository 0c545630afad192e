"""Labelled images of objects, cropped from the demo corpus's films."""

import json
from pathlib import Path

import cv2
import numpy as np

from vivi_keras.video.decode import Video


def labelled_crops(
    directory,
    image_size: int = 64,
    per_film: int | None = 16,
    *,
    margin: float = 1.25,
    least_visible: float = 0.7,
):
    """Cuts square crops around objects from a corpus's decoded films.

    Frames within dissolves and objects that are covered or cut off are left
    out. A film's crops are spread evenly over the remaining views, sorted by
    object.

    Args:
        directory: folder written by `render_corpus`.
        image_size: side of the crops in pixels.
        per_film: maximum number of crops from one film; None takes all.
        margin: side of the crop / longer side of the object's box.
        least_visible: minimum share of the object that must be visible.
    Returns: images uint8 [N, image_size, image_size, 3]; labels int64 [N],
        indices into the names; the names of all categories; film index
        int64 [N].
    Raises: FileNotFoundError: the folder has no finished corpus.
    """
    directory = Path(directory)
    if not (directory / "corpus.json").is_file():
        raise FileNotFoundError(
            f"{directory} must have corpus.json, which render_corpus writes"
            " last. Got: none"
        )
    corpus = json.loads((directory / "corpus.json").read_text())
    names = corpus["all_categories"]
    images, labels, films = [], [], []
    for index, entry in enumerate(corpus["films"]):
        truth = json.loads((directory / entry["truth"]).read_text())
        found = _clear_views(truth, least_visible)
        if per_film is not None and len(found) > per_film:
            places = (np.arange(per_film) + 0.5) * len(found) / per_film
            found = [found[int(place)] for place in places]
        wanted = {}
        for frame, category, bounds in found:
            wanted.setdefault(frame, []).append((category, bounds))
        for frame, pixels in _pictures(directory / entry["film"], wanted):
            for category, bounds in wanted[frame]:
                images.append(_crop(pixels, bounds, image_size, margin))
                labels.append(names.index(category))
                films.append(index)
    return (
        np.array(images, np.uint8).reshape(-1, image_size, image_size, 3),
        np.array(labels, np.int64),
        names,
        np.array(films, np.int64),
    )


def _clear_views(truth, least_visible):
    """All (frame, category, box) to use as examples, object by object."""
    blended, found = set(), []
    for shot in truth["shots"]:
        fade = shot["transition"]
        blended.update(range(fade["start_frame"], fade["stop_frame"]))
    for shot in truth["shots"]:
        for known in shot["objects"]:
            for place, share in enumerate(known["visible"]):
                frame = shot["start_frame"] + place
                if share >= least_visible and frame not in blended:
                    view = frame, known["category"], known["boxes"][place]
                    found.append((known["object_id"], *view))
    found.sort(key=lambda view: view[:2])
    return [view[1:] for view in found]


def _pictures(path, wanted):
    """Yields (index, RGB pixels) of a film's frames that are in `wanted`."""
    with Video(str(path), threads=1) as video:
        for frame in video.frames():
            if frame.index in wanted:
                yield frame.index, frame.picture.to_ndarray(format="rgb24")


def _crop(pixels, bounds, image_size, margin):
    """A square around a box, shifted to lie in the frame and resized."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = bounds
    side = round(max(right - left, bottom - top) * margin)
    side = max(2, min(side, height, width))
    x = int(np.clip((left + right - side) / 2, 0, width - side))
    y = int(np.clip((top + bottom - side) / 2, 0, height - side))
    square = pixels[y : y + side, x : x + side]
    shrink = side > image_size
    method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    return cv2.resize(square, (image_size, image_size), interpolation=method)
