"""Decodes a video file once: its frames in order with their times.

The only module that calls the decoder (PyAV, which brings its own FFmpeg).
Files are read from start to end without seeking: in too many real files
seeking gives wrong frames.
"""

import dataclasses
import threading
from collections.abc import Iterator

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

# Longest real pause between two frames; a larger step of the time stamps is
# treated as a discontinuity (a joined or damaged file). [O]
MAX_PAUSE_SECONDS = 60.0
# 8192 x 8192: a header that claims more is very likely damaged. [O]
MAX_PIXELS = 1 << 26
# Decoding stops after this many errors in a row without a frame. [O]
MAX_ERRORS_IN_A_ROW = 200
# A video that ends earlier than its file says, by more than this share, was
# cut off. [O]
_MISSING_SHARE = 0.05
DEFAULT_RATE = 25.0
# A playlist that is named like a video must not access the network.
_SAFE = {"protocol_whitelist": "file,crypto,data"}

# Tags may be in any encoding. Before version 19, PyAV fails on tags that are
# not UTF-8 unless it is set to replace what it cannot read.
_TAGS = (
    {"metadata_errors": "replace"}
    if int(av.__version__.split(".")[0]) < 19
    else {}
)

# Planar 8-bit formats, luma first, whose planes can be sampled directly:
# format -> chroma subsampling (horizontal, vertical).
_PLANAR = {
    "yuv420p": (2, 2),
    "yuvj420p": (2, 2),
    "yuv422p": (2, 1),
    "yuvj422p": (2, 1),
    "yuv444p": (1, 1),
    "yuvj444p": (1, 1),
}
# FFmpeg's errors, and those that PyAV raises for damaged headers.
_ERRORS = (
    av.FFmpegError,
    AssertionError,
    AttributeError,
    IndexError,
    OSError,
    OverflowError,
    ValueError,
)


class VideoError(ValueError):
    """A file that cannot be used, with the reason as its message."""


@dataclasses.dataclass
class Frame:
    """One decoded frame.

    Attributes:
        index: number in decoding order, from 0.
        time_seconds: time since the first frame; strictly increasing.
        picture: the decoder's frame, not yet converted.
        good: False between a decoding error and the next key frame, where
            pictures depend on missing data.
    """

    index: int
    time_seconds: float
    picture: av.VideoFrame
    good: bool


class Video:
    """A video file opened for one sequential pass.

    Args:
        path: file to read.
        threads: decoding threads; 0 lets FFmpeg choose.

    Raises:
        VideoError: the file is no video or has no video stream.
    """

    def __init__(self, path, threads=0):
        self.path = path
        try:
            self._container = av.open(path, options=_SAFE, **_TAGS)
        except _ERRORS as error:
            raise VideoError(f"cannot be opened: {describe(error)}") from error
        streams = [
            s
            for s in self._container.streams.video
            if s.codec_context is not None
            and not s.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            unknown = len(self._container.streams.video) > 0
            self.close()
            raise VideoError(
                "has a video stream of an unknown codec"
                if unknown
                else "has no video stream"
            )
        # As FFmpeg chooses among several: the first with the largest picture.
        self._stream = max(
            streams, key=lambda s: (s.width or 0) * (s.height or 0)
        )
        context = self._stream.codec_context
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.thread_count = threads
        context.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.frames_per_second = float(rate) if rate else DEFAULT_RATE
        if not 0.01 <= self.frames_per_second <= 1000:
            self.frames_per_second = DEFAULT_RATE
        aspect = self._stream.sample_aspect_ratio
        self.sample_aspect_ratio = float(aspect) if aspect else None
        self.duration_seconds = self._duration()
        self.errors = []  # what is wrong with the file, at most a few
        self.num_errors = 0  # of the decoder
        self.time_jumps = 0

    def _duration(self):
        """Duration in seconds that the file states; None if it states none."""
        stream, known = self._stream, []
        if stream.duration and stream.time_base:
            known.append(float(stream.duration * stream.time_base))
        else:
            known.append(_clock_seconds(stream.metadata.get("DURATION", "")))
        # The container's duration is shorter where the file skips its start,
        # longer where the sound lasts longer.
        if self._container.duration:
            known.append(self._container.duration / av.time_base)
        return min((s for s in known if s), default=None)

    def close(self):
        self._container.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    @property
    def frame_seconds(self):
        """Nominal duration of a frame."""
        return 1.0 / self.frames_per_second

    def frames(self) -> Iterator[Frame]:
        """Yields every frame once, in order.

        Decoding errors do not end the pass: they are counted in `num_errors`
        and the frames up to the next key frame are marked as not good.

        Raises:
            VideoError: no frame could be decoded.
        """
        index, last, offset, good = 0, 0.0, None, True
        for picture in self._pictures():
            if picture is None:
                good = False
                continue
            if picture.is_corrupt:
                self._note("a frame is marked as corrupt")
                good = False
            elif picture.key_frame:
                good = True
            last, offset = self._time(index, picture, last, offset)
            yield Frame(index, last, picture, good)
            index += 1
        if index == 0:
            reason = f" ({self.errors[0]})" if self.errors else ""
            raise VideoError(f"no frame could be decoded{reason}")
        self._note_missing_end(last + self.frame_seconds)

    def stamps(self):
        """Times of all packets from 0, in order, without decoding."""
        stamps = sorted(
            float(packet.pts * packet.time_base)
            for packet in self._container.demux(self._stream)
            if packet.pts is not None
        )
        return [stamp - stamps[0] for stamp in stamps]

    def _pictures(self):
        """Yields decoded pictures, and None where an error occurred."""
        failures = 0
        packets = self._container.demux(self._stream)
        while failures < MAX_ERRORS_IN_A_ROW:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except _ERRORS as error:
                # The demuxer cannot continue after an error of its own; the
                # frames still in the decoder are good.
                self._note(describe(error))
                yield None
                yield from self._flush()
                return
            try:
                pictures = packet.decode()
            except _ERRORS as error:
                failures += 1
                self._note(describe(error))
                yield None
                continue
            for picture in pictures:
                failures = 0
                yield picture
        self._note(f"given up after {failures} errors in a row")

    def _flush(self):
        try:
            yield from self._stream.codec_context.decode(None)
        except _ERRORS as error:
            self._note(describe(error))

    def _note_missing_end(self, end):
        """Notes a file that was cut off: the decoder may report no error."""
        promised = self.duration_seconds
        if promised is None or self.time_jumps:
            return
        if end < promised - max(1.0, _MISSING_SHARE * promised):
            self.errors.append(f"ends after {end:.1f} of {promised:.1f} s")

    def _note(self, error):
        self.num_errors += 1
        if len(self.errors) < 5 and error not in self.errors:
            self.errors.append(error)

    def _time(self, index, picture, last, offset):
        """Time since the first frame, and the time stamp counted as zero."""
        stamp = picture.time
        if index == 0:
            return 0.0, stamp
        step = None
        if stamp is not None and offset is not None:
            step = stamp - offset - last
        if step is not None and 0 < step <= MAX_PAUSE_SECONDS:
            return last + step, offset
        if stamp is not None:
            self.time_jumps += 1
            offset = stamp - last - self.frame_seconds
        return last + self.frame_seconds, offset


def _clock_seconds(text):
    """Seconds of a Matroska tag such as 00:09:56.458; None for other text."""
    try:
        hours, minutes, seconds = text.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds[:9])
    except ValueError:
        return None


def describe(error):
    """One line that describes an exception of the decoder."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(f"{type(error).__name__}: {text}".split())


def small_bgr(picture, long_side=160):
    """A small copy for comparing frames, by point sampling: uint8 [h, w, 3].

    PySceneDetect's own linear downscale is nearly point sampling too. A mean
    over thousands of sampled differences needs no low-pass filter, and
    sampling costs a twentieth of the decoding instead of half of it.
    """
    step = max(1, -(-max(picture.width, picture.height) // long_side))
    width, height = (
        max(1, picture.width // step),
        max(1, picture.height // step),
    )
    subsampling = _PLANAR.get(picture.format.name)
    if subsampling is None:
        return _bgr(picture, max(width, 2), max(height, 2), "FAST_BILINEAR")
    planes = [
        np.frombuffer(p, np.uint8).reshape(p.height, -1)
        for p in picture.planes[:3]
    ]
    luma = _sample(planes[0][:, : picture.width], width, height)
    chroma = [
        _sample(p[:, : -(-picture.width // subsampling[0])], width, height)
        for p in planes[1:]
    ]
    return cv2.cvtColor(
        cv2.merge([luma, chroma[1], chroma[0]]), cv2.COLOR_YCrCb2BGR
    )


def _sample(plane, width, height):
    rows, columns = plane.shape[0] // height, plane.shape[1] // width
    if plane.shape == (rows * height, columns * width):
        # Same result, faster: copying whole rows is fast, and the first byte
        # of a little-endian word is its lowest.
        whole = np.ascontiguousarray(plane[::rows])
        if columns in (2, 4, 8):
            return whole.view(f"<u{columns}").astype(np.uint8)
        return np.ascontiguousarray(whole[:, ::columns])
    return cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST)


_LOCAL = threading.local()


def _bgr(picture, width, height, interpolation):
    """A frame converted and resized by FFmpeg: uint8 [height, width, 3]."""
    # Building FFmpeg's tables for a size costs more than converting a frame,
    # so they are kept: one set, for one size, per interpolation and thread.
    kept = _LOCAL.__dict__.setdefault(interpolation, VideoReformatter())
    frame = kept.reformat(
        picture, width, height, "bgr24", interpolation=interpolation
    )
    return frame.to_ndarray()


def display_size(picture, sample_aspect, short_side):
    """(width, height) at which to store a frame, before rotation.

    Pixels become square and the short side at most `short_side`; frames are
    never enlarged.
    """
    width, height = float(picture.width), float(picture.height)
    if sample_aspect and 0.1 <= sample_aspect <= 10:
        if sample_aspect > 1:
            width *= float(sample_aspect)
        else:
            height /= float(sample_aspect)
    scale = min(1.0, short_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def to_bgr(picture, sample_aspect, short_side):
    """The frame to store: upright uint8 [h, w, 3], BGR."""
    width, height = display_size(picture, sample_aspect, short_side)
    if picture.interlaced_frame and picture.height >= 2 * height:
        # One field only: the two fields of a moving scene do not line up.
        image = picture.to_ndarray(format="bgr24")[::2]
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    else:
        image = _bgr(picture, width, height, "AREA")
    turns = round((getattr(picture, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def to_jpeg(image, quality=90):
    """JPEG bytes of a uint8 [h, w, 3] BGR image."""
    done, data = cv2.imencode(
        ".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise VideoError(f"a frame of shape {image.shape} gave no JPEG")
    return data.tobytes()
