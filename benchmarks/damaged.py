"""Runs vivi-prepare on thousands of damaged files to look for crashes.

    python benchmarks/damaged.py [--files=2000] [--workers=2] [--seed=0]

Small clips are rendered in several formats; then bits are flipped, ends are
cut off, or pieces of two files are joined. It checks that the run ends, each
file is reported, and each undamaged file is prepared. Prints the results.
"""

import argparse
import collections
import pathlib
import sys
import tempfile
import time

import av
import numpy as np

from vivi_keras import prepare

FORMATS = {
    "a.mp4": "libx264",
    "b.mkv": "libx264",
    "c.ts": "libx264",
    "d.avi": "mpeg4",
    "e.mpg": "mpeg2video",
    "f.webm": "libvpx-vp9",
    "g.mov": "mjpeg",
    "h.gif": "gif",
}
PIXELS = {"mjpeg": "yuvj420p", "gif": "rgb8"}


def clip(path, codec, rng):
    """Writes 40 frames of two scenes with moving blocks."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=12)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = PIXELS.get(codec, "yuv420p")
        for index in range(40):
            if index % 20 == 0:
                image = np.kron(
                    rng.integers(0, 220, (8, 12, 3)), np.ones((8, 8, 1))
                )
            noisy = np.roll(image, index, 1) + rng.integers(0, 35, image.shape)
            frame = av.VideoFrame.from_ndarray(
                noisy.astype(np.uint8), format="rgb24"
            )
            file.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        file.mux(stream.encode())


def damage(data, other, rng):
    """Flips bits, cuts off the end, or joins the file to another."""
    kind = rng.choice(["flip", "truncate", "splice"])
    if kind == "truncate":
        return kind, data[: int(rng.integers(0, len(data)))]
    if kind == "splice":
        start = int(rng.integers(0, len(data)))
        return kind, data[:start] + other[int(rng.integers(0, len(other))) :]
    changed = bytearray(data)
    for place in rng.integers(0, len(data), int(rng.integers(1, 200))):
        changed[place] ^= 1 << int(rng.integers(8))
    return kind, bytes(changed)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        archive = pathlib.Path(folder) / "in"
        archive.mkdir()
        for name, codec in FORMATS.items():
            clip(archive / name, codec, rng)
        whole = {n: (archive / n).read_bytes() for n in FORMATS}
        kinds = {}
        for number in range(arguments.files):
            name, other = rng.choice(list(whole), 2)
            kind, data = damage(whole[name], whole[other], rng)
            path = archive / f"{number:05d}_{name}"
            path.write_bytes(data)
            kinds[path.name] = kind
        start = time.monotonic()
        report = prepare.prepare(
            archive, pathlib.Path(folder) / "out", workers=arguments.workers
        )
        seconds = time.monotonic() - start
    tell(report, kinds, seconds)


def tell(report, kinds, seconds):
    found = {f["path"]: f for f in report["files"]}
    used = report["videos_used"] + report["videos_set_aside"]
    lost = [n for n in FORMATS if found.get(n, {}).get("status") != "used"]
    outcome = collections.Counter()
    for name, kind in kinds.items():
        file = found[name]
        damaged = ", flagged" if file.get("damaged") else ""
        outcome[f"{kind}: {file['status']}{damaged}"] += 1
    for name, count in sorted(outcome.items()):
        print(f"{count:6d}  {name}")
    trouble = [
        f for f in report["files"] if f.get("kind") in ("bug", "crash", "time")
    ]
    for file in trouble:
        print(f"        {file['path']}: {file['reason']}")
    print(
        f"{report['videos_found']} files found, {used} accounted for,"
        f" {len(FORMATS) - len(lost)} of {len(FORMATS)} undamaged files used,"
        f" {len(trouble)} crashes, hangs or bugs, {seconds:.0f} s"
    )
    if lost or used != len(kinds) + len(FORMATS):
        sys.exit(f"lost: {lost}")


if __name__ == "__main__":
    main()
