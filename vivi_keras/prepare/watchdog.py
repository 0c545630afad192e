"""Worker processes with time limits, so that no file can block a run."""

import concurrent.futures
import contextlib
import dataclasses
import json
import numbers
import os
import pathlib
import queue
import selectors
import subprocess
import sys
import threading
import time

import vivi_keras
from vivi_keras.video.decode import MAX_PIXELS

_START_SECONDS = 120.0
_WAIT_SECONDS = 60.0  # per call: the system rejects very long waits
_ENVIRONMENT = {
    # Otherwise waiting threads of the matrix library use CPU time that the
    # decoder needs.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # An image that claims more pixels is damaged or malicious.
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS),
}


@dataclasses.dataclass
class Limits:
    """Time limits for one file.

    Attributes:
        hang_seconds: Longest time without a new frame of a file.
        file_seconds: Longest time for one file; None for no limit.
    """

    hang_seconds: float = 60.0
    file_seconds: float | None = 4 * 3600.0

    def __post_init__(self):
        for name, seconds in dataclasses.asdict(self).items():
            if not (seconds is None and name == "file_seconds") and not (
                isinstance(seconds, numbers.Real) and seconds > 0
            ):
                raise ValueError(
                    f"{name} must be seconds above 0. Got: {seconds!r}"
                )


class _Worker:
    """One process and the pipes to it."""

    def __init__(self):
        root = str(pathlib.Path(vivi_keras.__file__).parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vivi_keras.prepare.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                **_ENVIRONMENT,
                "PYTHONPATH": os.pathsep.join(paths),
            },
        )
        self._buffer = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def send(self, job):
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()

    def receive(self, seconds):
        """Returns the next message, or None if none came in time.

        Raises:
            EOFError: the process has ended.
        """
        end = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0:
                return None
            if not self._selector.select(min(left, _WAIT_SECONDS)):
                continue
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise EOFError
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

    def stop(self):
        """Ends the process; returns its exit status."""
        # Kill the process first: its pipe then ends, which wakes a thread that
        # reads from the pipe.
        self._process.kill()
        status = self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return status


class Pool:
    """Runs jobs on `num_workers` processes.

    Args:
        num_workers: number of processes.
        limits: `Limits` for each job.
    """

    def __init__(self, num_workers, limits):
        self._limits = limits
        self._idle = queue.SimpleQueue()
        self._all = set()
        self._lock = threading.Lock()
        self._closed = False
        self._threads = concurrent.futures.ThreadPoolExecutor(num_workers)

    def submit(self, job, progress=None):
        """Returns a future of the worker's answer to a job.

        The answer has "done"; or "failed" with the reason, "kind" and, if
        known, "frames" and "seconds" read before the failure.
        """
        return self._threads.submit(self._run, job, progress)

    def _run(self, job, progress):
        worker = self._take()
        try:
            worker.send(job)
            answer, healthy = self._watch(worker, progress)
        except (EOFError, BrokenPipeError):
            status = self._drop(worker)
            return {
                "failed": f"the decoder crashed (exit status {status})",
                "kind": "crash",
            }
        except BaseException:
            self._drop(worker)
            raise
        if healthy:
            self._idle.put(worker)
        else:
            self._drop(worker)
        return answer

    def _take(self):
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            pass
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            worker = _Worker()
            self._all.add(worker)
        try:
            ready = worker.receive(_START_SECONDS) is not None
        except EOFError:
            ready = False
        if not ready:
            status = self._drop(worker)
            raise OSError(
                f"a worker process did not start (exit status {status})"
            )
        return worker

    def _watch(self, worker, progress):
        """The answer to the current job, and whether the worker is usable."""
        start = time.monotonic()
        far = {}
        while True:
            wait, reason = self._limits.hang_seconds, "hung"
            if self._limits.file_seconds is not None:
                left = start + self._limits.file_seconds - time.monotonic()
                if left < wait:
                    wait, reason = max(left, 0.0), "took too long"
            message = worker.receive(wait)
            if message is None:
                seconds = time.monotonic() - start
                text = f"{reason}: stopped after {seconds:.0f} s"
                return {**far, "failed": text, "kind": "time"}, False
            if "frames" not in message:
                return {**far, **message}, True
            far = message
            if progress is not None:
                progress(message)

    def _drop(self, worker):
        with self._lock:
            self._all.discard(worker)
        return worker.stop()

    def close(self):
        """Ends every process, including those that are working."""
        with self._lock:
            self._closed = True
            workers, self._all = list(self._all), set()
        for worker in workers:
            worker.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
