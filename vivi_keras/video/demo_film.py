"""One film of the demo corpus: its plan, its frames, its file, its truth."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from vivi_keras.video.demo_scene import Scene
from vivi_keras.video.demo_sprites import (
    CATEGORIES,
    category_of,
    paint_object,
)

_CAST_STREAM, _CUT_STREAM, _SCENE_STREAM = 21, 22, 23
# Ids of one film's objects never reach those of the next.
_OBJECTS_PER_FILM = 4096


@dataclass(frozen=True)
class FilmSettings:
    """What `render_corpus` was asked for; see there for each field."""

    seed: int
    height: int
    width: int
    frames_per_second: int
    num_shots: tuple[int, int]
    shot_seconds: tuple[float, float]
    objects_per_film: int
    objects_per_shot: tuple[int, int]
    categories: tuple[str, ...]
    categories_per_film: int
    returning: bool
    repaint: bool
    dissolve_share: float


@dataclass(frozen=True)
class ShotPlan:
    """One shot: when it is seen and who is in it.

    Attributes:
        start, stop: frames [start, stop) that count as this shot's; shots of
            a film leave no gap.
        fade_start, fade_stop: frames [fade_start, fade_stop) of the dissolve
            into this shot; equal where it begins by a cut.
        render_stop: where the last trace of this shot ends.
        object_ids: the objects in drawing order.
    """

    start: int
    stop: int
    fade_start: int
    fade_stop: int
    render_stop: int
    object_ids: tuple[int, ...]


def film_categories(settings: FilmSettings, film: int) -> list[int]:
    """The categories of a film, drawn so that a corpus has equally many.

    Films take turns at one shuffled list of all categories, then at the next.

    Returns: `categories_per_film` different indices into `CATEGORIES`.
    """
    allowed = [CATEGORIES.index(name) for name in settings.categories]
    share = settings.categories_per_film
    block, turn = divmod(film, len(allowed) // share)
    rng = np.random.default_rng([_CAST_STREAM, settings.seed, block])
    order = rng.permutation(allowed)
    return [int(c) for c in order[turn * share : (turn + 1) * share]]


def _cast(settings, film, num_shots):
    """Object ids for each shot of a film: list of tuples."""
    rng = np.random.default_rng([_CAST_STREAM, settings.seed, film, 1])
    low, high = settings.objects_per_shot
    sizes = rng.integers(low, high + 1, num_shots)
    first, width = film * _OBJECTS_PER_FILM, len(CATEGORIES)

    def new_object(place, categories):
        category = categories[place % len(categories)]
        return (first + place) * width + category

    if not settings.returning:
        casts, place = [], 0
        allowed = [CATEGORIES.index(name) for name in settings.categories]
        for size in sizes:
            kinds = rng.permutation(allowed)[: settings.categories_per_film]
            ids = [new_object(place + i, kinds) for i in range(size)]
            casts.append(tuple(int(i) for i in ids))
            place += int(size)
        return casts
    kinds = film_categories(settings, film)
    company = [new_object(i, kinds) for i in range(settings.objects_per_film)]
    shown = np.zeros(len(company))
    casts = []
    for size in sizes:  # whoever was seen least comes next
        turn = np.argsort(shown + 0.5 * rng.random(len(company)))[:size]
        shown[turn] += 1
        casts.append(tuple(company[i] for i in rng.permutation(turn)))
    return casts


def plan_film(settings: FilmSettings, film: int) -> list[ShotPlan]:
    """Plans the shots of a film: a pure function of settings and number."""
    rng = np.random.default_rng([_CUT_STREAM, settings.seed, film])
    low, high = settings.num_shots
    count = int(rng.integers(low, high + 1))
    seconds = rng.uniform(*settings.shot_seconds, count)
    lengths = np.round(seconds * settings.frames_per_second).astype(int)
    bounds = np.concatenate([[0], np.cumsum(np.maximum(lengths, 6))])
    fades, lengths = [0], np.diff(bounds)
    for index in range(1, count):
        wanted = rng.random() < settings.dissolve_share
        # A third of the shorter shot, so that two fades never meet.
        longest = max(2, int(lengths[index - 1 : index + 1].min()) // 3)
        shortest = min(longest, max(2, settings.frames_per_second // 3))
        fades.append(int(rng.integers(shortest, longest + 1)) * wanted)
    starts = [int(bounds[i]) - fades[i] // 2 for i in range(count)]
    stops = [starts[i] + fades[i] for i in range(count)]
    casts = _cast(settings, film, count)
    return [
        ShotPlan(
            start=int(bounds[i]),
            stop=int(bounds[i + 1]),
            fade_start=starts[i],
            fade_stop=stops[i],
            render_stop=stops[i + 1] if i + 1 < count else int(bounds[-1]),
            object_ids=casts[i],
        )
        for i in range(count)
    ]


def _open_scene(settings, film, index, shot, painted):
    """Builds the scene of a shot; `painted` keeps the film's sprites."""
    sprites = []
    for object_id in shot.object_ids:
        coat = index + 1 if settings.repaint else 0
        if (object_id, coat) not in painted:
            side = 32 * max(2, round(settings.height / 32 * 1.25))
            painted[object_id, coat] = paint_object(
                settings.seed, object_id, side, coat
            )
        sprites.append(painted[object_id, coat])
    return Scene(
        [_SCENE_STREAM, settings.seed, film, index],
        shot.render_stop - shot.fade_start,
        settings.frames_per_second,
        sprites,
        settings.height,
        settings.width,
    )


def film_frames(settings: FilmSettings, film: int, shots: list[ShotPlan]):
    """Draws a film frame by frame.

    Yields: for each frame, pixels uint8 [H, W, 3] and what is to be seen: a
        list of (shot index, scene, place within the scene, owner, outlines),
        the last three as `Scene.draw` gives them; two while a fade lasts.
    """
    painted, scenes = {}, {}
    for frame in range(shots[-1].stop):
        layers = []
        pixels = None
        for index, shot in enumerate(shots):
            if not shot.fade_start <= frame < shot.render_stop:
                continue
            if index not in scenes:
                scenes.pop(index - 2, None)
                scenes[index] = _open_scene(
                    settings, film, index, shot, painted
                )
            place = frame - shot.fade_start
            drawn, owner, outlines = scenes[index].draw(place)
            layers.append((index, scenes[index], place, owner, outlines))
            if pixels is None:
                pixels = drawn
            else:
                length = shot.fade_stop - shot.fade_start
                share = (place + 1) / (length + 1)
                pixels = cv2.addWeighted(pixels, 1 - share, drawn, share, 0)
        yield pixels, layers


def _shot_truth(shot, index):
    fades = shot.fade_stop > shot.fade_start
    kind = "dissolve" if fades else "cut"
    objects = [
        {
            "object_id": object_id,
            "category": CATEGORIES[category_of(object_id)],
            "boxes": [],
            "visible": [],
            "x": [],
            "y": [],
            "size": [],
            "angle": [],
            "squash": [],
        }
        for object_id in shot.object_ids
    ]
    return {
        "start_frame": shot.start,
        "stop_frame": shot.stop,
        "transition": {
            "kind": "start" if index == 0 else kind,
            "start_frame": shot.fade_start,
            "stop_frame": shot.fade_stop,
        },
        "background": None,
        "objects": objects,
    }


def _record(truth, layer):
    """Adds one drawn frame of a shot to its truth."""
    _, scene, place, owner, outlines = layer
    truth["background"] = scene.background
    counts = np.bincount(owner.ravel(), minlength=len(outlines) + 1)
    for number, known in enumerate(truth["objects"]):
        box, area = outlines[number]
        track = scene.tracks[number]
        known["boxes"].append(box)
        seen = counts[number + 1] / max(1, area)
        known["visible"].append(round(float(seen), 3))
        for name in ("x", "y", "size", "angle", "squash"):
            value = float(getattr(track, name)[place])
            known[name].append(round(value, 3))


def write_film(directory: Path, settings: FilmSettings, film: int) -> dict:
    """Renders one film to film_XXXX.mp4 with film_XXXX.json beside it.

    Both appear under their names only when whole.

    Returns: the film's line for corpus.json.
    """
    shots = plan_film(settings, film)
    truths = [_shot_truth(shot, i) for i, shot in enumerate(shots)]
    name = f"film_{film:04d}"
    part = directory / f".{name}.part.mp4"
    digest, num_frames = hashlib.sha256(), 0
    with av.open(str(part), "w", format="mp4") as container:
        stream = _open_stream(container, settings)
        for pixels, layers in film_frames(settings, film, shots):
            digest.update(pixels)
            for layer in layers:
                shot = shots[layer[0]]
                if shot.start <= num_frames < shot.stop:
                    _record(truths[layer[0]], layer)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(picture))
            num_frames += 1
        container.mux(stream.encode())
    truth = {
        "film": f"{name}.mp4",
        "seed": settings.seed,
        "frames_per_second": settings.frames_per_second,
        "height": settings.height,
        "width": settings.width,
        "num_frames": num_frames,
        "pixels_sha256": digest.hexdigest(),
        "shots": truths,
    }
    write_json(directory / f"{name}.json", truth)
    os.replace(part, directory / f"{name}.mp4")
    return {
        "film": f"{name}.mp4",
        "truth": f"{name}.json",
        "num_frames": num_frames,
        "num_shots": len(shots),
        "pixels_sha256": truth["pixels_sha256"],
    }


def _open_stream(container, settings):
    stream = container.add_stream("libx264", rate=settings.frames_per_second)
    stream.width, stream.height = settings.width, settings.height
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1
    # Without mbtree: with it, now and then, equal pixels gave unequal files.
    stream.options = {
        "preset": "superfast",
        "crf": "20",
        "x264-params": "mbtree=0",
    }
    return stream


def write_json(path: Path, value) -> None:
    """Writes a JSON file that appears under its name only when whole."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value) + "\n")
    os.replace(part, path)
