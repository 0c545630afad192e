"""Runs of vivi-pretrain that are watched and stopped."""

import subprocess
import time


def look(workdir, moment):
    """What changes when the moment comes."""
    folder = workdir / "checkpoints"
    if moment == "write":  # of a checkpoint
        return {path.name for path in folder.glob("unfinished_*")}
    if moment == "row":  # of metrics.csv, at the end of an epoch
        file = workdir / "metrics.csv"
        return {file.stat().st_mtime_ns} if file.exists() else set()
    return {path.name for path in folder.glob("step_*")}


def stop_at(command, workdir, moment, number, delay_seconds, environment=None):
    """Runs until something new is there, then sends the signal; the status."""
    before = look(workdir, moment)
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and look(workdir, moment) <= before:
            time.sleep(0.001)
        time.sleep(delay_seconds)
        process.send_signal(number)
        return process.wait()
