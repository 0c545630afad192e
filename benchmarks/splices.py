"""Makes spliced films with known cuts from real single-shot clips.

Used by `shots.py`. `media` is a folder with the files named in `POOLS`
(docs/videos.md lists their packages). The two pools share no clip.
"""

import dataclasses
import pathlib

import av
import cv2
import numpy as np

WIDTH, HEIGHT, RATE = 640, 360, 24


def _spans(text):
    return [tuple(map(int, span.split("-"))) for span in text.split()]


# File -> [start, stop) frames of single shots, checked by eye; of the film at
# most 120 frames per shot, 8 away from its ends.
_FILM_TUNE = _spans("""
    561-681 1153-1273 1354-1448 1464-1523 1539-1658 1821-1911 1927-2047
    2202-2322 2402-2486 2502-2622 2712-2823 2839-2893 2971-3037 3053-3173
    3521-3570 3586-3706 3752-3852 3927-3981 4077-4197 4274-4324 4340-4455
    4471-4536 4552-4604 4734-4788 4804-4892 5021-5071 5139-5259 5315-5363
    5438-5510 5587-5707 5852-5972
""")
_FILM_REPORT = _spans("""
    7333-7392 7408-7492 7554-7605 7669-7724 7777-7897 8162-8282 8953-9001
    9017-9072 9088-9140 9156-9276 9515-9567 9601-9711 9727-9787 9899-9979
    10024-10073 10347-10401 10476-10566 10645-10765 10850-10970 11103-11180
    11196-11304 11357-11477 11772-11892
""")
POOLS = {
    "tune": {
        "play101.mkv": [(4, 79)],
        "play103.mkv": [(4, 144)],
        "play105.mkv": [(4, 108)],
        "play107.mkv": [(4, 86)],
        "play108.mkv": [(4, 84)],
        "play110.mkv": [(4, 96)],
        "win005.mkv": [(4, 210)],
        "carphone_pristine.mp4": [(0, 120)],
        "tree.avi": [(0, 68)],
        "bbb.mp4": _FILM_TUNE,
    },
    "report": {
        "play113.mkv": [(4, 61)],
        "play116.mkv": [(4, 96)],
        "play118.mkv": [(4, 92)],
        "play119.mkv": [(4, 72)],
        "play124.mkv": [(4, 96)],
        "win129.mkv": [(4, 156)],
        "bikes.mp4": [(31, 75), (77, 136), (138, 186), (188, 241)],
        "cityCC0.mpg": [(2, 114), (118, 188)],
        "vtest.avi": [(0, 130), (330, 460), (660, 790)],
        "bbb.mp4": _FILM_REPORT,
    },
}


@dataclasses.dataclass
class Transition:
    """Frames [start, stop) mix two shots; a hard cut has start == stop."""

    start: int
    stop: int
    kind: str  # cut, dissolve or fade

    @property
    def middle(self):
        return (self.start + self.stop) / 2


def load_clips(media, pool, size=(WIDTH, HEIGHT)):
    """Loads a pool's clips: list of (source, uint8 [n, height, width, 3]).

    Args:
        media: folder of the files.
        pool: "tune" or "report".
        size: (width, height) of the clips.
    """
    clips = []
    for name, spans in POOLS[pool].items():
        clips += _read(pathlib.Path(media) / name, spans, size)
    return clips


def _read(path, spans, size):
    wanted = {i for a, b in spans for i in range(a, b)}
    images = {}
    with av.open(str(path)) as file:
        for index, frame in enumerate(file.decode(video=0)):
            if index in wanted:
                images[index] = frame.reformat(
                    *size, "bgr24", interpolation="AREA"
                ).to_ndarray()
    return [
        (path.name, np.stack([images[i] for i in range(a, b) if i in images]))
        for a, b in spans
    ]


def splice(clips, seed, num_shots):
    """Makes one film of spliced shots.

    Returns: (uint8 [n, height, width, 3] BGR, list of Transition).
    """
    rng = np.random.default_rng(seed)
    film, transitions, last, length = [], [], None, 0
    for number in range(num_shots):
        choices = [i for i in range(len(clips)) if i != last]
        last = int(rng.choice(choices))
        shot = _shot(clips[last][1], rng)
        if number:
            kind = str(
                rng.choice(["cut", "dissolve", "fade"], p=[0.5, 0.3, 0.2])
            )
            tail, shot, size = _join(film.pop(), shot, kind, rng)
            film.append(tail)
            length = sum(len(f) for f in film)
            transitions.append(Transition(length - size, length, kind))
        film.append(shot)
    return np.concatenate(film), transitions


def _shot(images, rng):
    """A piece of a clip, sometimes with camera motion or a flash."""
    length = min(len(images), int(rng.integers(44, 97)))
    start = int(rng.integers(0, len(images) - length + 1))
    shot = images[start : start + length]
    kind = rng.choice(
        ["plain", "pan", "zoom", "shake", "flash"],
        p=[0.5, 0.14, 0.12, 0.08, 0.16],
    )
    if kind in ("pan", "zoom", "shake"):
        shot = np.stack(_moved(shot, kind, rng))
    elif kind == "flash":
        shot = shot.copy()
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(10, length - 12))
            span = int(rng.integers(1, 4))
            gain = rng.uniform(60, 180)
            bright = shot[at : at + span].astype(np.float32) + gain
            shot[at : at + span] = np.minimum(bright, 255)
    return shot


def _moved(shot, kind, rng):
    speed = rng.uniform(2, 14) * rng.choice([-1, 1])
    scale = 1.5
    moved = []
    full_height, full_width = shot.shape[1:3]
    speed *= full_width / WIDTH
    for index, image in enumerate(shot):
        part = index / len(shot)
        x = y = 0.5
        if kind == "pan":
            # Moves back and forth within the enlarged image.
            phase = (index * abs(speed) / (full_width * 0.5)) % 2
            x = phase if phase <= 1 else 2 - phase
        elif kind == "zoom":
            scale = (
                1
                + (part if speed > 0 else 1 - part)
                * abs(speed)
                * WIDTH
                / full_width
                / 10
            )
        else:
            x, y = 0.5 + rng.normal(0, 0.03, 2)
            x, y = np.clip([x, y], 0, 1)
        width, height = full_width / scale, full_height / scale
        left, top = x * (full_width - width), y * (full_height - height)
        matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
        moved.append(cv2.warpAffine(image, matrix, (full_width, full_height)))
    return moved


def _join(first, second, kind, rng):
    """(first with the transition at its end, rest of second, its frames)."""
    if kind == "cut":
        return first, second, 0
    size = int(rng.integers(6, 25))
    if kind == "dissolve":
        part = ((np.arange(size) + 1) / (size + 1))[:, None, None, None]
        mixed = first[-size:] * (1 - part) + second[:size] * part
        mixed = np.round(mixed).astype(np.uint8)
        return np.concatenate([first[:-size], mixed]), second[size:], size
    half = size // 2
    black = np.zeros((int(rng.integers(0, 5)), *first.shape[1:]), np.uint8)
    down = (1 - (np.arange(half) + 1) / (half + 1))[:, None, None, None]
    out = np.round(first[-half:] * down).astype(np.uint8)
    back = np.round(second[:half] * down[::-1]).astype(np.uint8)
    mixed = np.concatenate([out, black, back])
    return np.concatenate([first[:-half], mixed]), second[half:], len(mixed)


def write(path, film):
    """Writes frames as H.264, the usual format on the web."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(
            "libx264", rate=RATE, options={"preset": "veryfast", "crf": "24"}
        )
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuv420p"
        for image in film:
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
