"""Formats that archives hold: each a small file made here."""

import shutil
import subprocess

import av
import numpy as np
import pytest
from film_helpers import (
    COLOURS,
    COUNT,
    HEIGHT,
    WIDTH,
    quadrants,
    write,
    write_sound,
)

from vivi_keras.video import decode, extract, sources
from vivi_keras.video import settings as settings_lib


def run(path, **settings):
    """(description, {frame index: RGB image}) of a prepared file."""
    images = {}

    def keep(index, jpeg):
        import cv2

        data = np.frombuffer(jpeg, np.uint8)
        images[index] = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]

    video = extract.extract(
        sources.Source("video", str(path)),
        settings_lib.Settings(frames_per_second=4.0, **settings),
        keep,
        threads=1,
    )
    return video, images


def check_colours(image, colours=COLOURS, tolerance=30):
    height, width = image.shape[:2]
    for place, colour in enumerate(colours):
        top, left = divmod(place, 2)
        y, x = (2 * top + 1) * height // 4, (2 * left + 1) * width // 4
        np.testing.assert_allclose(image[y, x], colour, atol=tolerance)


FORMATS = {
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "mpeg2.mpg": ("mpeg2video", "yuv420p"),
    "mjpeg.mov": ("mjpeg", "yuvj420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "hevc.mkv": ("libx265", "yuv420p"),
    "ten_bit.mp4": ("libx264", "yuv420p10le"),
    "full_chroma.mkv": ("libx264", "yuv444p"),
    "half_chroma.mkv": ("libx264", "yuv422p"),
    "lossless.mkv": ("ffv1", "yuv420p"),
    "rgb.mkv": ("ffv1", "bgr0"),
    "alpha.mov": ("qtrle", "argb"),
    "stream.ts": ("libx264", "yuv420p"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_format(tmp_path, name):
    codec, pixels = FORMATS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    options = {"libx265": {"x265-params": "log-level=none"}}.get(codec)
    path = write(tmp_path / name, codec, pixels, options=options)
    video, images = run(path)
    assert video["num_frames"] == COUNT and video["errors"] == []
    assert video["duration_seconds"] == pytest.approx(2, abs=0.1)
    assert sorted(images) == list(range(0, COUNT, 3))
    for image in images.values():
        assert image.shape == (HEIGHT, WIDTH, 3)
        check_colours(image, tolerance=45)


def test_grey(tmp_path):
    video, images = run(write(tmp_path / "grey.mkv", "ffv1", "gray"))
    assert video["num_frames"] == COUNT
    spread = images[0].max(-1).astype(int) - images[0].min(-1)
    assert spread.max() <= 4 and np.ptp(images[0]) > 60


def test_gif(tmp_path):
    video, images = run(write(tmp_path / "a.gif", "gif", "rgb8"))
    assert video["num_frames"] == COUNT
    check_colours(images[0], tolerance=60)


@pytest.mark.parametrize("size", [(98, 66), (97, 61), (18, 122)])
def test_odd_sizes(tmp_path, size):
    video, images = run(write(tmp_path / "o.mkv", "ffv1", "yuv444p", size))
    assert images[0].shape == (size[1], size[0], 3)
    check_colours(images[0])


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation(tmp_path, turn):
    path = write(
        tmp_path / "r.mp4",
        prepare=lambda stream: stream.set_display_rotation(turn),
    )
    turns = turn // 90
    expected = np.rot90(np.array(COLOURS).reshape(2, 2, 3), turns)
    _, images = run(path)
    shape = (WIDTH, HEIGHT) if turns % 2 else (HEIGHT, WIDTH)
    assert images[0].shape == (*shape, 3)
    check_colours(images[0], expected.reshape(4, 3))


def test_pixels_that_are_not_square(tmp_path):
    path = tmp_path / "wide.mp4"
    options = {"x264-params": "sar=2/1"}
    _, images = run(write(path, options=options))
    assert images[0].shape == (HEIGHT, 2 * WIDTH, 3)
    _, images = run(path, short_side=32)
    assert images[0].shape == (32, 96, 3)


def test_frames_are_not_enlarged(tmp_path):
    _, images = run(write(tmp_path / "x.mp4"), short_side=512)
    assert images[0].shape == (HEIGHT, WIDTH, 3)


def test_interlaced(tmp_path):
    """Two fields half a picture apart: one of them alone has no comb."""
    path = tmp_path / "i.mkv"
    options = {"x264-params": "interlaced=1:tff=1:crf=10:keyint=1"}
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=12, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
        for _ in range(COUNT):
            image = np.zeros((128, 128, 3), np.uint8)
            image[0::2, :64] = 255
            image[1::2, 64:] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    _, images = run(path, short_side=64)
    image = images[0].astype(float)
    assert image[:, :28].mean() > 200 and image[:, 36:].mean() < 55


def test_variable_frame_rate(tmp_path):
    stamps = [0, 1, 2, 3, 10, 11, 30, 31, 32, 60]
    path = write(tmp_path / "v.mkv", stamps=stamps, count=len(stamps))
    with decode.Video(str(path)) as video:
        times = [frame.time_seconds for frame in video.frames()]
        assert video.time_jumps == 0
    np.testing.assert_allclose(times, np.array(stamps) / 12, atol=2e-3)


def test_stamps_that_start_late_jump_and_run_backwards(tmp_path):
    first = write(tmp_path / "a.ts", stamps=list(range(1200, 1212)), count=12)
    second = write(tmp_path / "b.ts", stamps=list(range(12)), count=12)
    third = write(tmp_path / "c.ts", stamps=list(range(9000, 9012)), count=12)
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(p.read_bytes() for p in (first, second, third)))
    with decode.Video(str(path)) as video:
        times = [frame.time_seconds for frame in video.frames()]
        assert video.time_jumps >= 1
    assert times[0] == 0.0 and len(times) >= 30
    assert np.all(np.diff(times) > 0)
    assert times[-1] == pytest.approx((len(times) - 1) / 12, abs=0.8)


def test_several_video_streams(tmp_path):
    """The largest picture counts, wherever it stands."""
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as file:
        sizes = [(32, 32), (WIDTH, HEIGHT)]
        streams = []
        for size in sizes:
            stream = file.add_stream("mpeg4", rate=12)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            streams.append(stream)
        for index in range(COUNT):
            for stream, size in zip(streams, sizes, strict=True):
                frame = av.VideoFrame.from_ndarray(
                    quadrants(index, *size), format="rgb24"
                )
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode())
    _, images = run(path)
    assert images[0].shape == (HEIGHT, WIDTH, 3)


def test_sound_alone(tmp_path):
    write_sound(tmp_path / "sound.mp4")
    with pytest.raises(decode.VideoError, match="no video stream"):
        run(tmp_path / "sound.mp4")


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_shorter_than_a_shot(tmp_path, num_frames):
    video, images = run(write(tmp_path / "s.mp4", count=num_frames))
    assert len(video["shots"]) == 1
    assert len(images) == min(num_frames, 2)


def test_truncated_file_keeps_its_good_frames(tmp_path):
    path = write(tmp_path / "t.mkv", count=120, options={"g": "12"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    video, images = run(path)
    assert 0 < video["num_frames"] < 120
    assert images
    assert "of 10.0 s" in video["errors"][-1], video["errors"]


def test_only_a_missing_end_is_told(tmp_path):
    """Sound that is longer, and a start to be skipped, are no damage."""
    path = write(tmp_path / "v.mp4", count=96, options={"g": "48"})
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg program")
    run_ffmpeg = ["ffmpeg", "-v", "error"]
    for name, before, after in [
        ("skip.mp4", ["-ss", "3"], ["-c", "copy"]),
        ("sound.mkv", ["-f", "lavfi", "-i", "sine=duration=20"], []),
    ]:
        subprocess.run(
            [*run_ffmpeg, *before, "-i", path, *after, tmp_path / name],
            check=True,
        )
        video, _ = run(tmp_path / name)
        assert video["errors"] == [], name


def test_frames_after_damage_wait_for_a_key_frame(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "d.ts"
    write(path, count=120, options={"g": "12"}, noise=rng)
    data = bytearray(path.read_bytes())
    for place in rng.integers(len(data) // 3, 2 * len(data) // 3, 60):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    video, images = run(path)
    again, same = run(path)
    assert video == again and video["num_errors"] > 0
    for index, image in images.items():
        np.testing.assert_array_equal(image, same[index])


def test_ffmpeg_agrees(tmp_path):
    """Frame for frame what the ffmpeg program gives, B frames included."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg program")
    path = write(tmp_path / "x.mp4", options={"bf": "3"})
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo",
         "-pix_fmt", "gray", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    expected = np.frombuffer(raw, np.uint8).reshape(-1, HEIGHT, WIDTH)
    with decode.Video(str(path)) as video:
        frames = [f.picture.to_ndarray(format="gray") for f in video.frames()]
    assert len(frames) == len(expected) == COUNT
    for mine, theirs in zip(frames, expected, strict=True):
        assert np.abs(mine.astype(int) - theirs).mean() < 2


def test_size_that_changes_on_the_way(tmp_path):
    first = write(tmp_path / "a.ts", "mpeg2video", count=24)
    second = write(tmp_path / "b.ts", "mpeg2video", size=(64, 96), count=24)
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    video, images = run(path)
    assert video["num_frames"] >= 44
    assert {i.shape for i in images.values()} == {(64, 96, 3), (96, 64, 3)}


def test_memory_limit_changes_nothing(tmp_path, monkeypatch):
    """Frames encoded early, to save memory, are the frames kept anyway."""
    path = write(tmp_path / "x.mp4", count=150, options={"g": "12"})
    expected, images = run(path)
    held = []
    monkeypatch.setattr(extract, "WINDOW_BYTES", 1)
    original = extract._Pass._save_memory

    def watch(self, frame):
        original(self, frame)
        waiting = [*self._window, *(self._open.held() if self._open else [])]
        grid = [h for h in waiting if h.on_grid]
        held.append(sum(h.num_bytes > 0 for h in grid))

    monkeypatch.setattr(extract._Pass, "_save_memory", watch)
    found, same = run(path)
    assert max(held) <= 1 and len(held) > 40
    assert found == expected and images.keys() == same.keys()
    for index, image in images.items():
        np.testing.assert_array_equal(image, same[index])


def test_tags_in_another_encoding(tmp_path):
    path = write(
        tmp_path / "latin.mp4",
        prepare=lambda stream: stream.container.metadata.update(title="QQQQ"),
    )
    data = path.read_bytes()
    assert data.count(b"QQQQ") == 1
    path.write_bytes(data.replace(b"QQQQ", b"\xe9t\xe9\xff"))
    video, images = run(path)
    assert video["num_frames"] == COUNT
    check_colours(images[0])
