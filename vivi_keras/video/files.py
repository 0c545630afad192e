"""Which files of an archive are videos."""

import os
import pathlib

_WORDS = """
    3g2 3gp amv asf avi dv f4v flv gif h264 h265 hevc ivf m1v m2t m2ts m2v
    m4v mjpeg mjpg mkv mov mp4 mpe mpeg mpg mpv mts mxf nut ogm ogv ogx qt
    rm rmvb ts vob webm wmv y4m apng avif webp
"""
EXTENSIONS = frozenset(f".{word}" for word in _WORDS.split())


def readable(path):
    """A path as text that can be stored and shown anywhere.

    Bytes that are no UTF-8 and control characters appear escaped.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )


def find(folder, skip=()):
    """The files below a folder, in a stable order.

    Symbolic links are followed, each folder is visited once.

    Args:
        folder: where to look.
        skip: folders not to enter.

    Returns: (paths of videos relative to the folder, number of other files,
        list of (path, reason) that could not be read).
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"videos: expected a folder, got {str(folder)!r}")
    skip = {os.path.realpath(s) for s in skip}
    videos, others, unreadable, seen = [], 0, [], set()
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            status = os.stat(here)
            names = sorted(os.listdir(here))
        except OSError as error:
            unreadable.append((os.path.relpath(here, folder), str(error)))
            continue
        place = (status.st_dev, status.st_ino)
        if place in seen:
            continue
        seen.add(place)
        for name in names:
            path = here / name
            if path.is_dir():
                if os.path.realpath(path) not in skip:
                    pending.append(path)
            elif path.suffix.lower() in EXTENSIONS:
                videos.append(os.path.relpath(path, folder))
            else:
                others += 1
    return sorted(videos, key=os.fsencode), others, unreadable
