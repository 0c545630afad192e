"""Decodes a video file once: its frames in order with their times.

Only this module calls the decoder of PyAV, which brings its own FFmpeg. Files
are read from start to end without seeking, because seeking gives wrong frames
in too many real files.
"""

import dataclasses
import itertools
import threading
from collections.abc import Iterator

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter

from vivi_keras.video.clock import REORDERED, Clock

# A longer step between time stamps that does not fit the others is a jump.
# Streams, which may be joined or interrupted, have the first limit; other
# files, where a recorder may have waited for a change, the second. [O]
STREAM_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
_DISCONTINUOUS = 0x200  # FFmpeg's AVFMT_TS_DISCONT
# Maximum number of bytes of pictures that are buffered to sort their stamps.
# Four pictures are always allowed: the larger pictures are, the fewer of them a
# codec reorders. [O]
_REORDER_BYTES = 48 << 20
# 8192 x 8192: a header that claims more is very likely damaged. [O]
MAX_PIXELS = 1 << 26
# Decoding stops after this many errors in a row, if it has given frames. [O]
MAX_ERRORS_IN_A_ROW = 200
# A video that ends earlier than its file says, by more than this share, was
# cut off. [O]
_MISSING_SHARE = 0.05
DEFAULT_RATE = 25.0
MAX_RATE = 1000.0
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
        VideoError: the file is not a video or has no video stream.
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
            others = self._container.streams.video
            unknown = any(s.codec_context is None for s in others)
            self.close()
            if unknown:
                raise VideoError("has a video stream of an unknown codec")
            cover = ", only a cover picture" if others else ""
            raise VideoError(f"has no video stream{cover}")
        # FFmpeg chooses in the same way: the first stream with the largest
        # picture.
        self._stream = max(
            streams, key=lambda s: (s.width or 0) * (s.height or 0)
        )
        context = self._stream.codec_context
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.thread_count = threads
        context.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate
        if not rate or rate > MAX_RATE:
            rate = DEFAULT_RATE
        self.nominal_rate = float(rate)
        self._clock = Clock(1 / self.nominal_rate, self.longest_pause_seconds)
        self._num_frames = 0
        self._end = None
        self._spans = {}  # number of a stream -> its first and last tick
        self._size = None
        # AVI stores no display times. FFmpeg's guess for a packet is the time
        # of the next one.
        self._guessed = self._container.format.name == "avi"
        base = self._stream.time_base
        self._tick = base.numerator, base.denominator
        aspect = self._stream.sample_aspect_ratio
        self.sample_aspect_ratio = float(aspect) if aspect else None
        self.duration_seconds = self._duration()
        self.errors = []  # what is wrong with the file, at most a few
        self.num_errors = 0  # of the decoder

    @property
    def longest_pause_seconds(self):
        """A longer step between stamps may be a jump; see `Clock`."""
        if self._container.format.flags & _DISCONTINUOUS:
            return STREAM_PAUSE_SECONDS
        return LONGEST_PAUSE_SECONDS

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
        stated = min((s for s in known if s), default=None)
        start = (self._container.start_time or 0) / av.time_base
        # Matroska counts from 0, not from the first frame.
        if stated and "matroska" in self._container.format.name:
            return stated - start if 0 < start < stated else stated
        return stated

    def close(self):
        self._container.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    @property
    def time_jumps(self):
        """Number of places where the time stamps jump or restart."""
        return self._clock.num_jumps

    @property
    def end_seconds(self):
        """Time at which the last frame ends; None before `frames` is done."""
        return self._end

    @property
    def frames_per_second(self):
        """Frames per second of video; before a pass, as the file states it."""
        if self._end is None:
            return self.nominal_rate
        return self._num_frames / self._end

    def frames(self) -> Iterator[Frame]:
        """Yields every frame once, in order.

        Decoding errors do not end the pass: they are counted in `num_errors`
        and the frames up to the next key frame are marked as not good.

        Raises:
            VideoError: no frame could be decoded.
        """
        picture = None
        for seconds, (picture, good) in self._clock.times(self._stamped()):
            yield Frame(self._num_frames, seconds, picture, good)
            self._num_frames += 1
        if picture is None:
            reason = f" ({self.errors[0]})" if self.errors else ""
            raise VideoError(f"no frame could be decoded{reason}")
        self._end = self._clock.end(self._seconds(picture.duration))
        self._note_missing_end()

    def _stamped(self):
        """Yields (time stamp in seconds or None, (picture, good))."""
        good = True
        for picture in self._pictures():
            if picture is None:
                good = False
                continue
            if picture.is_corrupt:
                self._note("a frame is marked as corrupt")
                good = False
            elif picture.key_frame:
                good = True
            if self._size != (picture.width, picture.height):
                self._size = picture.width, picture.height
                size = sum(plane.buffer_size for plane in picture.planes)
                few = max(4, _REORDER_BYTES // max(size, 1))
                self._clock.depth = min(REORDERED, few)
            yield self._seconds(picture.pts), (picture, good)

    def stamps(self):
        """Time stamps of all packets, in order of display, without decoding."""
        parts, before = [[]], None
        for packet in self._container.demux(self._stream):
            if not packet.size:
                continue
            if before is not None and (packet.dts or before) < before:
                parts.append([])  # the stamps restart
            before = before if packet.dts is None else packet.dts
            self._stamp(packet)
            parts[-1].append(self._seconds(packet.pts))
        if not any(None in part for part in parts):
            parts = map(sorted, parts)
        return list(itertools.chain.from_iterable(parts))

    def orientation(self):
        """The `orientation` of the first picture, which is decoded for it."""
        picture = next((p for p in self._pictures() if p is not None), None)
        return (
            (False, False, False) if picture is None else orientation(picture)
        )

    def _pictures(self):
        """Yields decoded pictures, and None where an error occurred."""
        failures, any_yet = 0, False
        # The audio is read too: it shows whether the file is as long as stated.
        streams = [self._stream, *self._container.streams.audio]
        packets = self._container.demux(streams)
        while failures < MAX_ERRORS_IN_A_ROW:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except _ERRORS as error:
                # The demuxer cannot continue after an error of its own; the
                # frames still in the decoder are good.
                self._note(describe(error))
                yield None
                break
            self._stamp(packet)
            if packet.stream.index != self._stream.index:
                continue
            if packet.size == 0:  # the picture is repeated, or the file ends
                length = self._seconds(packet.duration)
                self._clock.repeat(self._seconds(packet.pts), length)
                continue
            try:
                pictures = packet.decode()
            except _ERRORS as error:
                # With threads, good frames may still be on their way.
                failures += any_yet
                self._note(describe(error))
                yield None
                continue
            for picture in pictures:
                failures, any_yet = 0, True
                yield picture
        else:
            self._note(f"given up after {failures} errors in a row")
        try:
            yield from self._stream.codec_context.decode(None)
        except _ERRORS as error:
            self._note(describe(error))
            yield None

    def _stamp(self, packet):
        """Sets a packet's display time; records its stream's first and last."""
        if self._guessed or packet.pts is None:
            packet.pts = packet.dts
        start = packet.pts
        if start is None:
            return
        index, stop = packet.stream.index, start + (packet.duration or 0)
        first, last = self._spans.get(index, (start, stop))
        self._spans[index] = min(first, start), max(last, stop)

    def _seconds(self, ticks):
        """Seconds of a number of ticks of the video stream, or None."""
        if ticks is None:
            return None
        return ticks * self._tick[0] / self._tick[1]

    def _note_missing_end(self):
        """Notes a file that was cut off: the decoder may report no error."""
        promised = self.duration_seconds
        if promised is None or self.time_jumps:
            return
        ends = [self._end]
        whole = (self._container.duration or 0) / av.time_base
        own = self._seconds(self._stream.duration)
        if own is None or abs(own - whole) < 0.01:
            # The stated duration may be that of the longest stream, which may
            # be the audio.
            ends += [
                float((stop - start) * self._container.streams[n].time_base)
                for n, (start, stop) in self._spans.items()
            ]
        if max(ends) < promised - max(1.0, _MISSING_SHARE * promised):
            self.errors.append(
                f"ends after {self._end:.1f} of {promised:.1f} s"
            )

    def _note(self, error):
        self.num_errors += 1
        if len(self.errors) < 5 and error not in self.errors:
            self.errors.append(error)


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
    return orient(image, orientation(picture))


def orientation(picture):
    """How to show a frame: (transposed, then mirrored, then upside down).

    A display matrix (of 9 numbers, as in ISO/IEC 14496-12) maps a point (x, y)
    of the picture to (a x + c y, b x + d y). For other angles, the nearest of
    the eight possible orientations is used.
    """
    data = picture.side_data.get(SideData.DISPLAYMATRIX)
    if data is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def orient(image, how):
    """Turns and mirrors a picture [h, w, 3] by its `orientation`."""
    transposed, mirrored, upside_down = how
    if transposed:
        image = image.transpose(1, 0, 2)
    if mirrored:
        image = image[:, ::-1]
    if upside_down:
        image = image[::-1]
    return np.ascontiguousarray(image)


def to_jpeg(image, quality=90):
    """JPEG bytes of a uint8 [h, w, 3] BGR image."""
    done, data = cv2.imencode(
        ".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise VideoError(f"a frame of shape {image.shape} gave no JPEG")
    return data.tobytes()
