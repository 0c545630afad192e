"""Draws one shot of a demo film: a pure function of its seeds."""

from dataclasses import dataclass

import cv2
import numpy as np

from vivi_keras.demo.sprites import Sprite, pose_sprite
from vivi_keras.demo.textures import background


@dataclass(frozen=True)
class Track:
    """One object's pose in each frame of a shot; arrays are [T].

    Attributes:
        x, y: centre in pixels.
        size: length of the longer side in pixels.
        angle: rotation in radians, clockwise on the screen.
        squash: factor on the object's own width, as if it turned away;
            negative if it is mirrored.
    """

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    angle: np.ndarray
    squash: np.ndarray


def _wave(rng, time, reach):
    """A smooth drift in [-reach, reach] at the times [T], in seconds."""
    hertz, start = rng.uniform(0.08, 0.3), rng.uniform(0, 2 * np.pi)
    return reach * np.sin(start + 2 * np.pi * hertz * time)


def _draw_track(rng, time, height, width, largest):
    size = height * rng.uniform(0.45, largest)
    size = size * np.exp(_wave(rng, time, rng.uniform(0.05, 0.25)))
    places = []
    for side in (width, height):
        margin = min(0.4 * float(size.max()), 0.45 * side)
        start, stop = rng.uniform(margin, side - margin, 2)
        seconds = max(float(time[-1]), 0.1)
        farthest = 0.4 * height * seconds
        path = np.clip(stop - start, -farthest, farthest) * time / seconds
        places.append(start + path + _wave(rng, time, 0.04 * height))
    angle = rng.uniform(-0.7, 0.7) + rng.uniform(-0.3, 0.3) * time
    angle = angle + _wave(rng, time, rng.uniform(0.0, 0.2))
    squash = 1.0 - np.abs(_wave(rng, time, rng.uniform(0.0, 0.45)))
    squash = squash * rng.choice([-1, 1])
    return Track(*places, size, angle, squash)


def draw_tracks(rng, time, num_objects, height, width):
    """Chooses random tracks: those of several tries that come least close.

    Args:
        rng: a NumPy generator.
        time: float [T], each frame's time in seconds.
        num_objects: number of objects that move at once, >= 1.
        height, width: the film's size in pixels.
    Returns: list of `num_objects` tracks.
    """
    largest = 0.85 if num_objects == 1 else 0.62
    tries = []
    for _ in range(1 if num_objects == 1 else 12):
        tracks = [
            _draw_track(rng, time, height, width, largest)
            for _ in range(num_objects)
        ]
        gap = np.inf
        for i, a in enumerate(tracks):
            for b in tracks[:i]:
                far = np.hypot(a.x - b.x, a.y - b.y) - (a.size + b.size) / 2
                gap = min(gap, float(far.min()))
        tries.append((gap, tracks))
    return max(tries, key=lambda pair: pair[0])[1]


class Scene:
    """Draws the frames of one shot.

    Args:
        seed: sequence of ints >= 0 that identifies the shot.
        num_frames: T, all frames that show the shot, dissolves included.
        frames_per_second: the film's frame rate.
        sprites: the objects in drawing order.
        height, width: the film's size in pixels.
    """

    def __init__(
        self,
        seed,
        num_frames,
        frames_per_second,
        sprites: list[Sprite],
        height,
        width,
    ):
        rng = np.random.default_rng(seed)
        time = np.arange(num_frames) / frames_per_second
        self.sprites, self.size = sprites, (height, width)
        self.tracks = draw_tracks(rng, time, len(sprites), height, width)
        # The camera moves within a canvas of 1.5 times the film's size.
        wide, tall = round(1.5 * width), round(1.5 * height)
        self.background, self._canvas = background(rng, tall, wide, height)
        self._pan = np.stack(
            [_wave(rng, time, 0.08 * side) for side in (width, height)]
        )
        self._zoom = 1.0 + _wave(rng, time, rng.uniform(0.0, 0.1))
        self._roll = _wave(rng, time, rng.uniform(0.0, 0.08))
        gain = rng.uniform(0.6, 1.1) * (1 + _wave(rng, time, 0.25))
        tint = rng.uniform(0.75, 1.25, 3) + np.stack(
            [_wave(rng, time, 0.12) for _ in range(3)], axis=1
        )
        self._gain = gain[:, None] * tint / tint.mean(1, keepdims=True)
        self._gamma = rng.uniform(0.8, 1.25) + _wave(rng, time, 0.1)
        self._lamp = self._draw_lamp(rng)
        self._lamp_turn = rng.uniform(0, 1, 2)
        self._lamp_end = rng.uniform(0, 1, 2)
        side = rng.choice([-1, 1])
        self._shadow = rng.uniform(0.02, 0.08, 2) * height * [side, 1]
        self._num_frames = num_frames

    def _draw_lamp(self, rng):
        """Smooth light map around 128, uint8 [2H, 2W, 3] for frames [H, W]."""
        height, width = self.size
        values = rng.uniform(1 - rng.uniform(0.1, 0.4), 1.15, (4, 4))
        size = (2 * width, 2 * height)
        values = values.astype(np.float32)
        lamp = cv2.resize(values, size, interpolation=cv2.INTER_CUBIC)
        lamp = np.clip(lamp * 128, 0, 255).astype(np.uint8)
        return np.repeat(lamp[..., None], 3, axis=2)

    def _draw_ground(self, frame):
        height, width = self.size
        tall, wide = self._canvas.shape[:2]
        turn = cv2.getRotationMatrix2D(
            (wide / 2, tall / 2),
            float(np.degrees(self._roll[frame])),
            float(self._zoom[frame]),
        )
        turn[:, 2] += self._pan[:, frame]
        turn[:, 2] -= [(wide - width) / 2, (tall - height) / 2]
        return cv2.warpAffine(
            self._canvas, turn, (width, height), borderMode=cv2.BORDER_REFLECT
        )

    def _light(self, frame, pixels):
        height, width = self.size
        ramp = np.arange(256) / 255.0
        curve = ramp[:, None] ** self._gamma[frame] * self._gain[frame]
        table = np.clip(255 * curve, 0, 255).astype(np.uint8)
        pixels = cv2.LUT(pixels, table.reshape(256, 1, 3))
        share = frame / self._num_frames
        place = self._lamp_turn * (1 - share) + self._lamp_end * share
        top, left = (place * [height, width]).astype(int)
        lamp = self._lamp[top : top + height, left : left + width]
        return cv2.multiply(pixels, lamp, scale=1 / 128)

    def draw(self, frame):
        """Draws one frame.

        Args:
            frame: int in [0, T).
        Returns: pixels uint8 [H, W, 3]; owner uint8 [H, W], 1 + index of the
            object visible at a pixel, or 0 for the background; and for each
            object its silhouette's (box, area): box [left, top, right,
            bottom), clipped to the frame, None if outside; area in pixels,
            unclipped.
        """
        height, width = self.size
        pixels = self._draw_ground(frame)
        owner = np.zeros((height, width), np.uint8)
        outlines = []
        for index, track in enumerate(self.tracks):
            left, top, patch = pose_sprite(
                self.sprites[index],
                (track.x[frame], track.y[frame]),
                track.size[frame],
                track.angle[frame],
                track.squash[frame],
            )
            self._cast_shadow(pixels, left, top, patch[..., 3])
            solid = patch[..., 3] >= 128
            inside = _overlap(left, top, patch.shape[:2], height, width)
            box = None
            if inside is not None:
                place, source = inside
                _paste(pixels[place], patch[source])
                seen = solid[source]
                owner[place][seen] = index + 1
                box = _box_of(seen, place)
            outlines.append((box, int(np.count_nonzero(solid))))
        return self._light(frame, pixels), owner, outlines

    def _cast_shadow(self, pixels, left, top, alpha):
        grow = round(self.size[0] * 0.03)
        shade = cv2.copyMakeBorder(
            alpha, grow, grow, grow, grow, cv2.BORDER_CONSTANT
        )
        shade = cv2.blur(shade, (2 * grow + 1, 2 * grow + 1))
        left, top = (
            left - grow + round(self._shadow[0]),
            top - grow + round(self._shadow[1]),
        )
        inside = _overlap(left, top, shade.shape, *self.size)
        if inside is not None:
            place, source = inside
            dark = 255 - (shade[source] >> 1)
            dark = cv2.merge([dark, dark, dark])
            pixels[place] = cv2.multiply(pixels[place], dark, scale=1 / 255)


def _overlap(left, top, shape, height, width):
    """Slices of frame and patch where they overlap, or None."""
    row, row_stop = max(0, top), min(height, top + shape[0])
    column, column_stop = max(0, left), min(width, left + shape[1])
    if row >= row_stop or column >= column_stop:
        return None
    place = (slice(row, row_stop), slice(column, column_stop))
    source = (
        slice(row - top, row_stop - top),
        slice(column - left, column_stop - left),
    )
    return place, source


def _paste(ground, patch):
    """Blends a premultiplied patch uint8 [h, w, 4] over ground, in place."""
    bare = 255 - patch[..., 3]
    bare = cv2.merge([bare, bare, bare])
    kept = cv2.multiply(ground, bare, scale=1 / 255)
    ground[...] = cv2.add(kept, np.ascontiguousarray(patch[..., :3]))


def _box_of(seen, place):
    """Half-open box of a mask that lies at `place` in the frame, or None."""
    left, top, wide, tall = cv2.boundingRect(seen.astype(np.uint8))
    if wide == 0:
        return None
    left, top = left + place[1].start, top + place[0].start
    return [left, top, left + wide, top + tall]
