"""Small pictures of an index's frames, and links that play its shots."""

import os
import pathlib
import urllib.parse

import cv2
import numpy as np

from vivi_keras import pages
from vivi_keras.archive import sources

HEIGHT = 96  # pixels of a picture


class Pictures:
    """Reads frames of an index from the data set or images it was made from.

    Args:
        index: `index.Index`.
    Attributes:
        missing: why there are no pictures, or None.
    """

    def __init__(self, index):
        self._index, self.missing = index, None
        self._source, self._numbers = None, {}
        source = index.manifest["source"]
        if source["kind"] == "dataset":
            self._open_dataset(source["path"])
        elif not os.path.isdir(source["path"]):
            self.missing = f"no pictures: {source['path']} moved"

    def _open_dataset(self, path):
        try:
            self._source = sources.DatasetSource(path)
        except ValueError as error:
            self.missing = f"no pictures, since the data set moved: {error}"
            return
        records = self._index.records()
        if records is None:
            self.missing = "no pictures until vivi-embed has finished"
            return
        keys = zip(records["video_id"], records["first_shot"], strict=True)
        self._numbers = dict(zip(keys, records["number"], strict=True))

    def get(self, row):
        """A frame's picture as the `src` of an <img>; None if it is missing."""
        image = self.image(row)
        return None if image is None else _picture(image)

    def image(self, row):
        """A frame as BGR uint8 [h, w, 3]; None if it is missing."""
        if self.missing is not None:
            return None
        frame = self._index.frames.iloc[row]
        if self._source is None:
            path = self._index.video_path(frame["video"])
            return None if path is None else _read(path)
        return self._frame(frame)

    def _frame(self, frame):
        shot = self._index.shots.iloc[frame["shot_row"]]
        record = int(shot["video_id"]), int(shot["first_shot"])
        number = self._numbers.get(record)
        found = (
            None
            if number is None
            else self._source.jpegs(int(number), record, [int(frame["place"])])
        )
        if found is None:
            self.missing = (
                "pictures are missing: the data set changed; run vivi-embed"
            )
            return None
        return cv2.imdecode(np.frombuffer(found[0], np.uint8), cv2.IMREAD_COLOR)


def _read(path):
    try:
        image = sources.read_image(path)
    except (OSError, ValueError):
        return None
    return image[..., ::-1]


def _picture(image):
    """BGR uint8 [h, w, 3] -> a data URI of a small JPEG."""
    image = np.ascontiguousarray(image)
    if image.shape[0] > HEIGHT:
        width = max(1, round(image.shape[1] * HEIGHT / image.shape[0]))
        image = cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return pages.data_uri(data.tobytes(), "jpeg")


def query_picture(image):
    """RGB uint8 [h, w, 3] -> a data URI."""
    return _picture(image[..., ::-1])


def link(path, page, start_seconds, stop_seconds):
    """A link from a page to a video, which plays one shot from start to stop.

    Args:
        path: the video's file, or None.
        page: path of the page.
        start_seconds, stop_seconds: the shot; both 0 for an image.
    Returns: str relative to the page's folder, or None without a file.
    """
    if path is None:
        return None
    folder = os.path.abspath(pathlib.Path(page).parent)
    relative = pathlib.PurePath(os.path.relpath(os.path.abspath(path), folder))
    text = urllib.parse.quote(relative.as_posix())
    if stop_seconds > start_seconds:
        text += f"#t={start_seconds:.2f},{stop_seconds:.2f}"
    return text


def clock(seconds):
    """Seconds as minutes and seconds, such as 1:02.5."""
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"
