"""Measures the peak memory of the worker process for each file.

    python benchmarks/memory.py FILE... [--frames_per_second=1]
        [--max_frames_per_shot=8]

Each file gets its own worker process, started like in vivi-prepare.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from vivi_keras.prepare import cache
from vivi_keras.video import settings as settings_lib


def prepare(path, settings, folder):
    """Prepares a file; returns (peak megabytes, description of the video)."""
    entry = pathlib.Path(folder) / "entry.zip"
    job = {
        "source": {"kind": "video", "path": os.path.abspath(path)},
        "entry": str(entry),
        "settings": dataclasses.asdict(settings),
        "threads": os.cpu_count() + 1,  # as for a single worker
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "vivi_keras.prepare.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.close()
    answer = json.loads(process.stdout.read().splitlines()[-1])
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0 or "done" not in answer:
        sys.exit(f"{path}: {answer}")
    with cache.Entry(entry) as opened:
        return usage.ru_maxrss / 1024, opened.video


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--frames_per_second", type=float, default=1.0)
    parser.add_argument("--max_frames_per_shot", type=int, default=8)
    arguments = parser.parse_args()
    settings = settings_lib.Settings(
        frames_per_second=arguments.frames_per_second,
        max_frames_per_shot=arguments.max_frames_per_shot,
    )
    for path in arguments.files:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            peak, video = prepare(path, settings, folder)
        kept = sum(len(s["frames"]) for s in video["shots"])
        print(
            f"{path}: {video['width']}x{video['height']},"
            f" {video['duration_seconds'] / 60:.1f} min, {kept} frames kept:"
            f" {peak:.0f} MB, {time.monotonic() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
