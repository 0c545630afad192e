"""Renders one film of the demo corpus, with its ground truth."""

import hashlib
import os
from pathlib import Path

import av
import cv2
import numpy as np

from vivi_keras import files
from vivi_keras.demo.categories import CATEGORIES, category_of
from vivi_keras.demo.plan import FilmSettings, ShotPlan, plan_film
from vivi_keras.demo.scene import Scene
from vivi_keras.demo.sprites import paint_object

_SCENE_STREAM = 23


def _open_scene(settings, film, index, shot, painted):
    """Builds the scene of a shot; `painted` caches the film's sprites."""
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

    Yields: for each frame, pixels uint8 [H, W, 3] and a list of the visible
        shots (two during a dissolve): (shot index, scene, frame within the
        scene, owner, outlines), the last two as `Scene.draw` returns them.
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
    """Adds one drawn frame of a shot to its ground truth."""
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
    """Renders one film to film_XXXX.mp4 and film_XXXX.json.

    Each file gets its name only when it is complete.

    Returns: the film's entry for corpus.json.
    """
    shots = plan_film(settings, film)
    truths = [_shot_truth(shot, i) for i, shot in enumerate(shots)]
    name = f"film_{film:04d}"
    part = directory / f".{name}.part.mp4"
    try:
        num_frames, digest = _encode(part, settings, film, shots, truths)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    truth = {
        "film": f"{name}.mp4",
        "seed": settings.seed,
        "frames_per_second": settings.frames_per_second,
        "height": settings.height,
        "width": settings.width,
        "num_frames": num_frames,
        "pixels_sha256": digest,
        "shots": truths,
    }
    files.write_json(directory / f"{name}.json", truth, None, sort_keys=False)
    os.replace(part, directory / f"{name}.mp4")
    return {
        "film": f"{name}.mp4",
        "truth": f"{name}.json",
        "num_frames": num_frames,
        "num_shots": len(shots),
        "pixels_sha256": truth["pixels_sha256"],
    }


def _encode(path, settings, film, shots, truths):
    """Draws and encodes a film and fills in `truths`.

    Returns: number of frames, SHA-256 of the pixels before encoding.
    """
    digest, num_frames = hashlib.sha256(), 0
    with av.open(str(path), "w", format="mp4") as container:
        stream = open_stream(
            container,
            settings.frames_per_second,
            settings.height,
            settings.width,
        )
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
    return num_frames, digest.hexdigest()


def open_stream(container, rate, height, width, quality=20):
    """An H.264 stream that gives the same bytes for the same pixels.

    Args:
        container: opened for writing.
        rate: int, frames a second.
        height, width: ints, even.
        quality: int, x264's CRF; lower is better.
    """
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1
    # With mbtree, equal pixels sometimes gave different files.
    stream.options = {
        "preset": "superfast",
        "crf": str(quality),
        "x264-params": "mbtree=0",
    }
    return stream
