"""Wall time of preparing a film against bare decoding and two programs.

    python benchmarks/prepare.py FILE [--rounds=3]

In turn in one run, medians: (a) PyAV decodes every frame and does nothing
else; (b) `scenedetect detect-adaptive` followed by `ffmpeg -vf fps=1,scale`,
each on its own. Prints seconds and the two ratios.
"""

import argparse
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import av

from vivi_keras import video


def bare(path, unused):
    with av.open(path) as file:
        stream = file.streams.video[0]
        stream.thread_type = "AUTO"
        for _ in file.decode(stream):
            pass


def prepare(path, folder):
    report = video.prepare(path, folder)
    if report["videos_used"] != 1:
        raise ValueError(f"expected one video, got {report}")


def programs(path, folder):
    scenedetect = [sys.executable, "-m", "scenedetect", "-q"]
    subprocess.run(
        [*scenedetect, "-i", path, "-o", folder, "detect-adaptive",
         "list-scenes"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, "-vf", "fps=1,scale=-2:256",
         "-q:v", "3", f"{folder}/%05d.jpg"],
        check=True,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        sys.exit("benchmarks/prepare.py needs the ffmpeg program")
    with tempfile.TemporaryDirectory() as warm:
        # TensorFlow is imported once, before any clock runs.
        prepare(arguments.file, pathlib.Path(warm))
    seconds = {bare: [], prepare: [], programs: []}
    for _ in range(arguments.rounds):
        for task, times in seconds.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.monotonic()
                task(arguments.file, folder)
                times.append(time.monotonic() - start)
    middle = {t.__name__: statistics.median(s) for t, s in seconds.items()}
    for task, times in seconds.items():
        print(task.__name__, " ".join(f"{s:.1f}" for s in times), "s")
    print(f"prepare / bare decode   {middle['prepare'] / middle['bare']:.2f}")
    print(
        f"programs / prepare      {middle['programs'] / middle['prepare']:.2f}"
    )


if __name__ == "__main__":
    main()
