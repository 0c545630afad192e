"""One clock for a file: times, rate and end from its stamps."""

import fractions
import struct

import av
import cv2
import numpy as np
import pytest
from film_helpers import HEIGHT, WIDTH, quadrants, write

from vivi_keras.video import decode, sources, tfio_decoder
from vivi_keras.video.clock import Clock

STEP = 1 / 12


def times(stamps, depth=16, pause=60.0, nominal=1.0):
    clock = Clock(nominal, pause)
    clock.depth = depth
    found = list(clock.times((s, n) for n, s in enumerate(stamps)))
    assert [n for _, n in found] == list(range(len(stamps)))
    seconds = [s for s, _ in found]
    assert seconds[0] == 0.0 and np.all(np.diff(seconds) > 0)
    return seconds, clock


def check_steady(stamps, num_jumps, step=0.04, **options):
    """Whether the times come at one step, whatever the stamps do."""
    seconds, clock = times(stamps, **options)
    np.testing.assert_allclose(seconds, step * np.arange(len(stamps)))
    assert clock.num_jumps == num_jumps
    assert clock.end(None) == pytest.approx(step * len(stamps))


STEADY = 0.04 * np.arange(60)


@pytest.mark.parametrize("start", [0.0, 3600.0, -2.0])
def test_stamps_count_from_the_first(start):
    check_steady(STEADY + start, 0)


def test_stamps_out_of_order_are_no_leaps():
    """As the pictures of an AVI with B-frames, in the order of display."""
    order = [0, 3, 2, 4, 1, 7, 6, 8, 5, 11, 10, 12, 9, *range(13, 60)]
    for depth in (4, 16):
        check_steady(STEADY[order], 0, depth=depth)
    # A time-lapse too.
    check_steady(3000.0 * np.array(order), 0, step=3000.0)


def test_stamps_that_begin_anew():
    check_steady([*STEADY, *STEADY, *(STEADY + 0.5)], 2)
    check_steady([*(STEADY + 95440), *(STEADY + 95442.4 - 2**33 / 9e4)], 1)
    # Of short pieces too, each shorter than what is put in order.
    check_steady([*STEADY[:10]] * 5, 4)


def test_a_leap_is_one_against_the_rhythm_of_the_file():
    check_steady([*STEADY, *(STEADY + 900)], 1)
    check_steady([0, *(STEADY + 900)], 1)
    check_steady([*STEADY[:9], *(STEADY[:9] + 700), *(STEADY + 1e4)], 2)
    check_steady(3000.0 * np.arange(9), 0, step=3000.0)
    assert times([0, 3000])[0] == [0, 3000]
    # A motion-triggered camera: five pictures, then minutes of nothing.
    stamps = [300 * (n // 5) + n % 5 for n in range(40)]
    seconds, clock = times(stamps)
    assert seconds == stamps and clock.num_jumps == 0
    # One wild stamp shifts others by a step at most.
    for wild in (1e6, -1e6):
        stamps = STEADY + 5000
        stamps[30] = wild
        seconds, _ = times(stamps)
        np.testing.assert_allclose(seconds, STEADY, atol=0.042)


def test_pauses_are_kept():
    stamps = [*STEADY, *(STEADY + 50)]
    assert times(stamps)[0] == pytest.approx(stamps)
    stamps = [*STEADY, *(STEADY + 900)]
    assert times(stamps, pause=3600.0)[0] == pytest.approx(stamps)


def test_a_picture_that_stays_is_no_leap():
    clock = Clock(0.04, 60.0)

    def pictures():
        for number in range(40):
            yield 0.04 * number, None
        for still in range(41, 5000):
            clock.repeat(0.04 * still, 0.04)
        yield 200.0, None
        for still in range(5001, 6000):
            clock.repeat(0.04 * still, 0.04)

    *_, (last, _) = clock.times(pictures())
    assert last == 200.0 and clock.num_jumps == 0
    assert clock.end(0.04) == pytest.approx(240.0)


def test_missing_and_equal_stamps():
    check_steady([None] * 40, 0, step=1.0)
    check_steady([*STEADY[:10], *[None] * 10, *STEADY[20:]], 0)
    check_steady([None, None, *STEADY[2:]], 0, nominal=0.04)
    check_steady(np.repeat(STEADY[::2], 2)[:-1], 0)
    check_steady(np.repeat(STEADY[::3], 3)[:-2], 0)
    check_steady([7.0] * 40, 0, nominal=0.04)


def test_rate_of_stamps_rounded_to_milliseconds():
    stamps = np.round(np.arange(300) / 23.976, 3)
    _, clock = times([*stamps, 5.0])
    assert clock.step_seconds() == pytest.approx(1 / 23.976, rel=2e-3)


def measured(path, threads=1):
    with decode.Video(str(path), threads) as video:
        frames = list(video.frames())
        return [f.time_seconds for f in frames], video


def write_stamps(path, stamps, rate=12, codec="libx264", **options):
    """A file whose stamps are in frames of its nominal rate."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(quadrants(index), "rgb24")
            frame.time_base, frame.pts = fractions.Fraction(1, rate), stamp
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize("threads", [1, 0])
@pytest.mark.parametrize("name", ["b.avi", "b.mkv", "b.mp4", "b.ts", "b.h264"])
def test_pictures_coded_out_of_order(tmp_path, name, threads):
    path = write_stamps(tmp_path / name, range(60), 25, bf="3")
    seconds, video = measured(path, threads)
    np.testing.assert_allclose(seconds, np.arange(60) / 25, atol=1.1e-3)
    assert video.end_seconds == pytest.approx(60 / 25, abs=2e-3)
    assert video.frames_per_second == pytest.approx(25, rel=1e-3)
    assert video.time_jumps == 0 and video.errors == []


@pytest.mark.parametrize("name", ["lapse.mkv", "lapse.mp4", "lapse.avi"])
def test_time_lapse(tmp_path, name):
    stamps = 3000 * np.arange(20)
    path = write_stamps(tmp_path / name, stamps.tolist(), 25, bf="0")
    seconds, video = measured(path)
    np.testing.assert_allclose(seconds, stamps / 25, atol=1e-3)
    assert video.time_jumps == 0 and video.errors == []
    assert video.frames_per_second == pytest.approx(25 / 3000)


def test_a_rate_that_is_the_clock_of_the_stamps(tmp_path):
    """Browsers write 1000 frames a second."""
    rng = np.random.default_rng(0)
    stamps = np.cumsum(rng.choice([16, 17, 33, 34, 50], 90))
    path = write_stamps(tmp_path / "a.mkv", stamps.tolist(), 1000, bf="0")
    seconds, video = measured(path)
    np.testing.assert_allclose(seconds, (stamps - stamps[0]) / 1e3, atol=1e-6)
    rate = 1e3 / np.diff(stamps).mean()
    assert video.frames_per_second == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize("name", ["o.mkv", "o.mp4", "o.ts"])
def test_whole_though_it_starts_late(tmp_path, name):
    stamps = [43200 + n for n in range(96)]
    path = write_stamps(tmp_path / name, stamps, g="12")
    _, video = measured(path)
    assert video.errors == [] and video.end_seconds == pytest.approx(
        8, abs=2e-3
    )
    assert video.duration_seconds == pytest.approx(8, abs=0.1)
    if name == "o.mkv":
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        _, video = measured(path)
        assert "of 8.0 s" in video.errors[-1]


def test_the_length_of_the_sound_is_not_that_of_the_film(tmp_path):
    path = tmp_path / "s.flv"
    with av.open(str(path), "w") as file:
        film = file.add_stream("flv", rate=12)
        film.width, film.height, film.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = file.add_stream("aac", rate=44100)
        sound.layout = "mono"
        for index in range(24):
            frame = av.VideoFrame.from_ndarray(quadrants(index), "rgb24")
            file.mux(film.encode(frame))
        rng = np.random.default_rng(0)
        for index in range(430):  # ten seconds
            frame = av.AudioFrame.from_ndarray(
                rng.uniform(-1, 1, (1, 1024)).astype(np.float32),
                format="fltp",
                layout="mono",
            )
            frame.sample_rate, frame.pts = 44100, 1024 * index
            file.mux(sound.encode(frame))
        file.mux([*film.encode(), *sound.encode()])
    _, video = measured(path)
    assert video.errors == [] and video.end_seconds == pytest.approx(
        2, abs=2e-3
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    _, video = measured(path)
    assert "of 10.0 s" in video.errors[-1]


def with_empty_packets(path, held):
    """A film of which only every `held`-th packet holds a picture."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(20):
            frame = av.VideoFrame.from_ndarray(quadrants(index), "rgb24")
            for packet in stream.encode(frame):
                for place in range(held):
                    empty = packet if place == 0 else av.Packet(b"")
                    empty.pts = empty.dts = index * held + place
                    empty.time_base = fractions.Fraction(1, 12)
                    empty.stream = stream
                    file.mux_one(empty)
    return path


@pytest.mark.parametrize("threads", [1, 0])
@pytest.mark.parametrize("held", [30, 900])
def test_an_empty_packet_keeps_the_picture(tmp_path, held, threads):
    path = with_empty_packets(tmp_path / "e.nut", held)
    with decode.Video(str(path), threads) as video:
        frames = list(video.frames())
    assert len(frames) == 20 and all(f.good for f in frames)
    assert video.errors == [] and video.time_jumps == 0
    seconds = [f.time_seconds for f in frames]
    np.testing.assert_allclose(seconds, held / 12 * np.arange(20), atol=1e-3)
    assert video.end_seconds == pytest.approx(20 * held / 12)


@pytest.mark.parametrize("threads", [1, 0])
def test_errors_before_the_first_frame_are_not_in_a_row(tmp_path, threads):
    """As of a broadcast that was joined long before a key frame."""
    path = write(tmp_path / "x.avi", "mjpeg", "yuvj420p", count=300)
    data, places = bytearray(path.read_bytes()), []
    place = data.find(b"\xff\xd8")
    while place >= 0:
        places.append(place)
        place = data.find(b"\xff\xd8", place + 2)
    for start, stop in zip(places[:250], places[1:], strict=False):
        data[start : stop - 16] = bytes(stop - 16 - start)
    path.write_bytes(bytes(data))
    with decode.Video(str(path), threads) as video:
        frames = list(video.frames())
    assert len(frames) == 50 and frames[-1].good
    assert "given up" not in " ".join(video.errors)


ONE = 1 << 16
MATRICES = {  # a, b, c, d -> what becomes of an image
    (ONE, 0, 0, ONE): lambda i: i,
    (-ONE, 0, 0, ONE): lambda i: i[:, ::-1],
    (ONE, 0, 0, -ONE): lambda i: i[::-1],
    (-ONE, 0, 0, -ONE): lambda i: i[::-1, ::-1],
    (0, ONE, ONE, 0): lambda i: i.transpose(1, 0, 2),
    (0, ONE, -ONE, 0): lambda i: np.rot90(i, -1),
    (0, -ONE, ONE, 0): lambda i: np.rot90(i, 1),
    (0, -ONE, -ONE, 0): lambda i: i[::-1, ::-1].transpose(1, 0, 2),
}


def laid(path, matrix, **options):
    """A file whose display matrix has these first numbers."""
    a, b, c, d = matrix
    write(path, **options)
    data = bytearray(path.read_bytes())
    place = data.find(b"tkhd")
    place += 44 + (12 if data[place + 4] else 0)
    numbers = a, b, 0, c, d, 0, 0, 0, 1 << 30
    data[place : place + 36] = struct.pack(">9i", *numbers)
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("matrix", MATRICES)
def test_every_display_matrix(tmp_path, matrix):
    path = laid(tmp_path / "m.mp4", matrix, count=2)
    with decode.Video(str(path)) as video:
        found = decode.to_bgr(next(video.frames()).picture, None, HEIGHT)
    expected = MATRICES[matrix](quadrants()[..., ::-1])
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 12


@pytest.mark.parametrize("matrix", MATRICES)
def test_tfio_frames_are_laid_and_timed_as_pyav_does(
    tmp_path, matrix, monkeypatch
):
    """tensorflow-io leaves the display matrix aside."""

    def decode_video(data):
        (tmp_path / "copy.mp4").write_bytes(data)
        with av.open(str(tmp_path / "copy.mp4")) as file:
            frames = [
                f.to_ndarray(format="rgb24") for f in file.decode(video=0)
            ]
        return np.stack(frames).view(Tensor)

    class Tensor(np.ndarray):
        def numpy(self):
            return np.asarray(self)

    monkeypatch.setattr(tfio_decoder, "_decode_video", lambda: decode_video)
    options = {"x264-params": "sar=2/1", "bf": "2"}
    stamps = [0, 1, 2, 3, 10, 11, 30, 31, 32, 60]
    path = laid(
        tmp_path / "m.mp4", matrix, stamps=stamps, count=10, options=options
    )
    kept = []
    for video in (decode.Video(str(path)), tfio_decoder.TfioVideo(str(path))):
        with video:
            frames = list(video.frames())
            image = decode.to_bgr(
                frames[0].picture, video.sample_aspect_ratio, HEIGHT
            )
            kept.append((image, [f.time_seconds for f in frames]))
    (ours, our_times), (theirs, their_times) = kept
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean() < 2
    np.testing.assert_allclose(our_times, their_times)
    np.testing.assert_allclose(our_times, np.array(stamps) / 12, atol=1e-3)


def sequence(stamps):
    import tensorflow as tf

    example = tf.train.SequenceExample()
    lists = example.feature_lists.feature_list
    for number, stamp in enumerate(stamps):
        image = np.full((8, 8, 3), number, np.uint8)
        data = cv2.imencode(".png", image)[1].tobytes()
        lists["image/encoded"].feature.add().bytes_list.value.append(data)
        lists["image/timestamp"].feature.add().int64_list.value.append(stamp)
    return sources._sequence(example.SerializeToString())


def test_stamps_of_a_sequence_example():
    """Equal, out of order, leaping: times increase and keep the rhythm."""
    shuffled = [0, 2, 1, 3, 3, 5, 4, 6]
    for stamps, expected, jumps in [
        ([10**6 * s for s in shuffled], [0, 1, 2, 3, 3.5, 4, 5, 6], 0),
        ([0, *(10**15 + 10**6 * s for s in range(8))], list(range(9)), 1),
        ([3600 * 10**6 * s for s in range(8)], [3600 * s for s in range(8)], 0),
    ]:
        with sequence(stamps) as video:
            found = [f.time_seconds for f in video.frames()]
            assert found == pytest.approx(expected)
            assert video.time_jumps == jumps
            end = expected[-1] + np.median(np.diff(expected))
            assert video.end_seconds == pytest.approx(end, rel=0.03)


def test_the_delay_of_an_animation(tmp_path):
    stamps = [0, 12, 30, 36, 120]
    path = write_stamps(tmp_path / "a.mkv", stamps, codec="ffv1")
    seconds, _ = measured(path)
    np.testing.assert_allclose(seconds, np.array(stamps) / 12, atol=1e-3)
    out = tmp_path / "a.gif"
    with av.open(str(path)) as source, av.open(str(out), "w") as file:
        stream = file.add_stream("gif", rate=12)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb8"
        for frame in source.decode(video=0):
            file.mux(stream.encode(frame.reformat(format="rgb8")))
        file.mux(stream.encode())
    seconds, video = measured(out)
    np.testing.assert_allclose(seconds, np.array(stamps) / 12, atol=0.02)


def test_a_single_picture_lasts_as_long_as_it_says(tmp_path):
    path = tmp_path / "still.gif"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("gif", rate=fractions.Fraction(1, 3))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb8"
        frame = av.VideoFrame.from_ndarray(quadrants(), "rgb24")
        file.mux(stream.encode(frame.reformat(format="rgb8")))
        file.mux(stream.encode())
    seconds, video = measured(path)
    assert seconds == [0.0] and video.errors == []
    assert video.end_seconds == pytest.approx(3, abs=0.1)
