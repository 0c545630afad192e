"""Measures how stable an encoder is over near frames of one shot."""

import numpy as np

from vivi_keras.evaluation.tasks.packages import Unavailable
from vivi_keras.features import cache, knn
from vivi_keras.features.encoder import resize_images
from vivi_keras.features.frames import shot_frames

NEAR_SECONDS = 1.0  # [O]
_FRAMES_PER_SHOT = 32


def near_frames(shot, near_seconds=NEAR_SECONDS):
    """Indices (anchor, near): a shot's middle frame and the frames near it."""
    anchor = len(shot.frames) // 2
    apart = np.abs(shot.times_seconds - shot.times_seconds[anchor])
    near = np.flatnonzero(apart <= near_seconds + 1e-6)
    return anchor, near[near != anchor]


def run(
    encoder,
    dataset,
    *,
    image_size,
    task=None,
    near_seconds=NEAR_SECONDS,
    max_shots=500,
    progress=None,
):
    """Compares each shot's middle frame with the frames near it.

    Args:
        encoder: Encoder or RawPixels.
        dataset: folder written by `vivi-prepare`.
        task: an ImageTask or None; frames are classified by the 20 nearest of
            its training images.
        near_seconds: float, largest distance of near frames, in seconds.
        progress: callable, called with the number of frames just done.
    Returns: dict. The first two are shares in [0, 1]:
        "accuracy": share of near frames that, of the middle frames of all
            shots, are nearest to that of their own shot, by features;
        "shots_steady": share of shots whose near frames all meet this
            condition;
        "cosine_near", "cosine_other": mean cosine of near frames to their
            own middle frame, and to those of other shots;
        "class_kept", "shots_class_kept", "classes_of": only with a task. The
            share of near frames with the same class as their middle frame, the
            share of shots where all have it, and the task's name;
        "num_shots", "num_near".
    Raises: Unavailable: fewer than two shots have near frames.
    """
    shots = shot_frames(dataset, _FRAMES_PER_SHOT, max_shots)
    chosen = [(shot, *near_frames(shot, near_seconds)) for shot in shots]
    chosen = [entry for entry in chosen if len(entry[2])]
    if len(chosen) < 2:
        raise Unavailable(
            f"{dataset} has {len(chosen)} shots with frames within"
            f" {near_seconds} s of their middle one; at least 2 are needed"
        )
    size = encoder.size_for(image_size)
    anchors = _features(
        encoder, [shot.frames[a] for shot, a, _ in chosen], size, progress
    )
    near = _features(
        encoder,
        [shot.frames[i] for shot, _, rows in chosen for i in rows],
        size,
        progress,
    )
    owner = np.repeat(np.arange(len(chosen)), [len(c[2]) for c in chosen])
    found, _ = knn.nearest(near, anchors, 1)
    result = _steadiness(found[:, 0] == owner, owner)
    cosines = knn.normalise(near) @ knn.normalise(anchors).T  # [near, shots]
    own = cosines[np.arange(len(near)), owner]
    result["cosine_near"] = float(own.mean())
    others = (cosines.sum() - own.sum()) / (cosines.size - len(own))
    result["cosine_other"] = float(others)
    if task is not None:
        classes = _classes(encoder, task, size, anchors, near)
        kept = _steadiness(classes[1] == classes[0][owner], owner)
        result["class_kept"] = kept["accuracy"]
        result["shots_class_kept"] = kept["shots_steady"]
        result["classes_of"] = task.name
    return {**result, "num_shots": len(chosen), "num_near": len(near)}


def _steadiness(is_kept, owner):
    whole = [is_kept[owner == shot].all() for shot in np.unique(owner)]
    return {
        "accuracy": float(np.mean(is_kept)),
        "shots_steady": float(np.mean(whole)),
    }


def _classes(encoder, task, size, *parts):
    """Predicts each part's classes from the task's training images."""
    train = list(task.batches("train", size, cache.BATCH_SIZE, 1000))
    values = np.concatenate([encoder.features(part[0]) for part in train])
    labels = np.concatenate([part[1] for part in train])
    return [
        knn.predict(part, values, labels, task.num_classes) for part in parts
    ]


def _features(encoder, frames, size, progress):
    values = []
    for start in range(0, len(frames), cache.BATCH_SIZE):
        part = frames[start : start + cache.BATCH_SIZE]
        images = [resize_images(frame[None], size)[0] for frame in part]
        values.append(encoder.features(np.stack(images)))
        if progress is not None:
            progress(len(part))
    return np.concatenate(values)
