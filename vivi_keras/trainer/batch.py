"""The fields of a batch: selecting them, checking shapes, splitting rows."""

from collections.abc import Mapping

import keras
from keras import ops

from vivi_keras.levels import replicas as replicas_lib

# Field: stream, dtype, number of axes it shares with the stream's images.
_FIELDS = {
    "frames": ("videos", "uint8", 0),
    "shot_mask": ("videos", "bool", 2),
    "video_id": ("videos", "int", 1),
    "duplicates": ("videos", "int", 2),
    "image": ("images", "uint8", 0),
    "label": ("images", "int", 1),
}
_OPTIONAL = ("duplicates", "label")
_IMAGES = {"videos": "frames", "images": "image"}


def used(batch, streams):
    """The fields of a batch, or of its spec, that belong to the streams.

    Args:
        batch: dict of tensors, arrays or specs.
        streams: "videos", "images" or both.
    Raises: ValueError: the batch has no frames or images of these streams.
    """
    if not isinstance(batch, Mapping):
        raise ValueError(f"A batch must be a dict. Got: {type(batch).__name__}")
    found = {
        name: batch[name]
        for name, (stream, *_) in _FIELDS.items()
        if stream in streams and name in batch
    }
    if not {*_IMAGES.values()} & {*found}:
        raise ValueError(
            "The batch must hold what the levels learn from:"
            f" {' or '.join(f'{x} ({_IMAGES[x]})' for x in streams)}."
            f" Got: {', '.join(map(str, batch))}"
        )
    return found


def streams(batch):
    """List of the streams in a batch: "videos", "images" or both."""
    return [stream for stream, name in _IMAGES.items() if name in batch]


def batch_shape(batch):
    """Returns (B, S, F, C) of the clips, copies per image, and (H, W).

    Without videos, B = S = F = 0; without images, copies per image is 0.

    Raises: ValueError: a field is missing or has a wrong dtype or shape.
    """
    clip, copies, sizes = None, 0, {}
    if "frames" in batch:
        shape = tuple(batch["frames"].shape)
        if len(shape) not in (6, 7) or shape[-1] != 3:
            raise ValueError(
                "frames must be [B, S, F, H, W, 3] or, with copies,"
                f" [B, S, F, C, H, W, 3]. Got: {list(shape)}"
            )
        clip = (*shape[:3], shape[3] if len(shape) == 7 else 1)
        sizes["frames"] = shape[-3:-1]
    if "image" in batch:
        shape = tuple(batch["image"].shape)
        if len(shape) not in (4, 5) or shape[-1] != 3:
            raise ValueError(
                "image must be [M, H, W, 3] or, with copies,"
                f" [M, C, H, W, 3]. Got: {list(shape)}"
            )
        copies = shape[1] if len(shape) == 5 else 1
        clip = (0, 0, 0, copies) if clip is None else clip
        sizes["image"] = shape[-3:-1]
    for name in _FIELDS:
        _check(name, batch)
    if len({*sizes.values()}) > 1:
        raise ValueError(
            f"frames and images must have one (height, width). Got: {sizes}"
        )
    return clip, copies, [*sizes.values()][0]


def _check(name, batch):
    """Raises ValueError if a field is missing or has a wrong shape or dtype."""
    stream, kind, axes = _FIELDS[name]
    images = _IMAGES[stream]
    if name not in batch:
        if images in batch and name not in _OPTIONAL:
            raise ValueError(
                f"A batch with {images} must hold {name}."
                f" Got: {', '.join(batch)}"
            )
        return
    if images not in batch:
        raise ValueError(f"A batch with {name} must hold {images}.")
    dtype = keras.backend.standardize_dtype(batch[name].dtype)
    if not dtype.startswith(kind):
        raise ValueError(f"{name} must be {kind}. Got: {dtype}")
    if not axes:
        return
    shape, wanted = tuple(batch[name].shape), tuple(batch[images].shape)[:axes]
    if len(shape) != axes or any(
        None not in pair and pair[0] != pair[1]
        for pair in zip(shape, wanted, strict=True)
    ):
        raise ValueError(
            f"{name} must be {list(wanted)}, the first axes of {images}."
            f" Got: {list(shape)}"
        )


def replica_spec(element_spec, num_replicas):
    """The spec of one replica's part of a global or distributed batch.

    Raises: ValueError: the batch cannot be divided evenly.
    """

    def part(spec):
        if hasattr(spec, "_value_specs"):  # from a distributed data set
            return spec._value_specs[0]
        rows = spec.shape[0]
        if rows is None:
            return spec
        if rows % num_replicas:
            raise ValueError(
                "The rows of a batch must be a multiple of"
                f" {num_replicas} replicas. Got: {rows} rows"
            )
        return keras.KerasTensor(
            (rows // num_replicas, *spec.shape[1:]),
            keras.backend.standardize_dtype(spec.dtype),
        )

    return {name: part(spec) for name, spec in element_spec.items()}


def micro_batches(batch, count):
    """Splits a replica's batch into `count` parts of equal size.

    Args:
        batch: dict of tensors whose number of rows `count` divides.
        count: int.
    Returns: list of `count` dicts; "frames_row" and "image_row" are the
        rows' int32 indices in the global batch, so that their views do not
        depend on the replica that computes them.
    """
    batch = dict(batch)
    for name in ("frames", "image"):
        if name in batch:
            rows = batch[name].shape[0]
            first = replicas_lib.current_replicas().index * rows
            row = ops.cast(first, "int32") + ops.arange(rows, dtype="int32")
            batch[f"{name}_row"] = row
    split = {name: ops.split(x, count) for name, x in batch.items()}
    return [{name: split[name][i] for name in split} for i in range(count)]
