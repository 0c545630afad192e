"""The progress bar of a run: files, hours of video, speed, time left."""

import threading
import time

from vivi_keras import commands


class Progress:
    """Counts files done and seconds of video, and can draw them as a bar.

    Args:
        files: list of `find_videos.File`.
        show: draw the bar on standard error, see `commands.progress_bar`.
    """

    def __init__(self, files, show):
        self._lock = threading.Lock()
        self._num_files = len(files)
        self._num_done = 0
        self._seconds = 0.0  # of video, in all files
        self._counted = {}  # file's id -> seconds counted so far
        self._start = time.monotonic()
        total = sum(f.size for f in files)
        self._bar = commands.progress_bar(
            total=total,
            disable=not show,
            desc=self._text(),
            bar_format="{percentage:3.0f}%|{bar:24}| {desc}, {remaining} left",
        )
        self._parts = {}

    def of(self, file):
        """Returns a function that takes a worker's messages about a file."""

        def progress(message):
            duration = message["duration"] or 0
            part = message["seconds"] / duration if duration > 0 else 0
            with self._lock:
                self._count(file, message["seconds"])
                self._advance(file, min(part, 1.0))

        self._counted[id(file)] = 0.0
        return progress

    def done(self, file):
        """Marks a file as done."""
        with self._lock:
            self._num_done += 1
            # Files prepared by an earlier run do not count for the speed.
            if id(file) in self._counted:
                self._count(file, file.details.get("seconds", 0.0))
            self._advance(file, 1.0)

    def _count(self, file, seconds):
        more = max(0.0, seconds - self._counted[id(file)])
        self._counted[id(file)] += more
        self._seconds += more

    def _advance(self, file, part):
        size = int(part * file.size)
        self._bar.update(max(0, size - self._parts.get(id(file), 0)))
        self._parts[id(file)] = max(size, self._parts.get(id(file), 0))
        self._bar.set_description_str(self._text(), refresh=False)

    def _text(self):
        speed = self._seconds / max(time.monotonic() - self._start, 1e-3)
        return (
            f"{self._num_done}/{self._num_files} files,"
            f" {self._seconds / 3600:.2f} h of video, {speed:.0f}x real time"
        )

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self._bar.close()
