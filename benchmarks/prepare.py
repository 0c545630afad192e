"""Compares the time to prepare a film with bare decoding and two programs.

    python benchmarks/prepare.py FILE [--rounds=3]

Needs the program ffmpeg. In each round three jobs run in turn: preparing; bare
decoding, in which PyAV decodes every frame; and the two programs, `scenedetect
detect-adaptive` and then `ffmpeg -vf fps=1,scale`. Prints the seconds and the
two ratios of medians, for wall time and for the processor time of all
processes, which other work on the machine affects less.
"""

import argparse
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import av

from vivi_keras import prepare as prepare_lib


def bare(path, unused):
    with av.open(path) as file:
        stream = file.streams.video[0]
        stream.thread_type = "AUTO"
        for _ in file.decode(stream):
            pass


def prepare(path, folder):
    report = prepare_lib.prepare(path, folder)
    if report["videos_used"] != 1:
        raise ValueError(f"One video must be used. Got: {report}")


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
        # TensorFlow is imported once, before anything is timed.
        prepare(arguments.file, pathlib.Path(warm))
    taken = {bare: [], prepare: [], programs: []}
    for _ in range(arguments.rounds):
        for task, times in taken.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.monotonic(), _processor_seconds()
                task(arguments.file, folder)
                times.append(
                    (time.monotonic() - start[0],
                     _processor_seconds() - start[1])
                )  # fmt: skip
    for name, part in (("wall", 0), ("processor", 1)):
        seconds = {t: [pair[part] for pair in p] for t, p in taken.items()}
        for task, times in seconds.items():
            listed = " ".join(f"{s:.1f}" for s in times)
            print(f"{name:9s} {task.__name__:8s} {listed} s")
        middle = {t: statistics.median(s) for t, s in seconds.items()}
        print(
            f"{name:9s} prepare / bare {middle[prepare] / middle[bare]:.2f},"
            f" programs / prepare {middle[programs] / middle[prepare]:.2f}"
        )


def _processor_seconds():
    """User and system time of this process and its finished children."""
    usage = [
        resource.getrusage(who)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return sum(u.ru_utime + u.ru_stime for u in usage)


if __name__ == "__main__":
    main()
