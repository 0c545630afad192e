"""Shots: hard cuts, dissolves, fades, flashes; streaming is exact."""

import av
import cv2
import numpy as np
import pytest

from vivi_keras import video
from vivi_keras.video import decode, shots, transitions


def scene(seed, num_frames, size=(96, 54)):
    """Smooth texture that drifts slowly: uint8 [num_frames, h, w, 3]."""
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[:height, :width]
    image = np.zeros((num_frames, height, width, 3))
    base = rng.uniform(60, 190, 3)
    for _ in range(6):
        wave, phase = rng.uniform(-0.35, 0.35, 2), rng.uniform(0, 6, 3)
        gain = rng.uniform(10, 30, 3)
        for index in range(num_frames):
            at = (x + 0.2 * index) * wave[0] + y * wave[1]
            image[index] += gain * np.sin(at[..., None] + phase)
    return np.clip(image + base, 0, 255).astype(np.uint8)


def mix(first, second, num_frames):
    part = (np.arange(num_frames) + 1) / (num_frames + 1)
    part = part[:, None, None, None]
    mixed = first[-num_frames:] * (1 - part) + second[:num_frames] * part
    return [first[:-num_frames], mixed.astype(np.uint8), second[num_frames:]]


def write(path, parts, rate=24):
    frames = np.concatenate(parts)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return len(frames)


def cuts(path, **options):
    return [s.start_frame for s in video.detect_shots(path, **options)][1:]


def test_hard_cut_dissolve_and_fade(tmp_path):
    a, b, c, d = (scene(seed, 60) for seed in range(4))
    black = np.zeros((3, *a.shape[1:]), np.uint8)
    down = np.linspace(0.9, 0.1, 6)[:, None, None, None]
    fade = [
        (c[-6:] * down).astype(np.uint8),
        black,
        (d[:6] * down[::-1]).astype(np.uint8),
    ]
    parts = [a, *mix(b, c, 12)]
    parts[-1] = parts[-1][:-6]
    total = write(tmp_path / "x.mp4", [*parts, *fade, d[6:]])
    found = cuts(tmp_path / "x.mp4")
    # The dissolve covers [108, 120), the fade [162, 177).
    assert len(found) == 3, found
    np.testing.assert_allclose(found, [60, 114, 169.5], atol=2)
    all_shots = video.detect_shots(tmp_path / "x.mp4")
    assert all_shots[-1].stop_frame == total
    for before, after in zip(all_shots, all_shots[1:], strict=False):
        assert before.stop_frame == after.start_frame
        assert before.stop_seconds == after.start_seconds
    assert all_shots[0].stop_seconds == pytest.approx(60 / 24)


def test_flash_is_no_cut(tmp_path):
    a = scene(5, 80)
    a[40:42] = np.minimum(a[40:42].astype(int) + 120, 255)
    write(tmp_path / "flash.mp4", [a])
    assert cuts(tmp_path / "flash.mp4") == []


@pytest.mark.parametrize("detector", ["content", "histogram"])
def test_other_detectors_find_a_hard_cut(tmp_path, detector):
    write(tmp_path / "x.mp4", [scene(1, 40), scene(2, 40)])
    assert cuts(tmp_path / "x.mp4", detector=detector) == [40]


def test_unknown_detector_names_the_known(tmp_path):
    write(tmp_path / "x.mp4", [scene(1, 10)])
    with pytest.raises(ValueError, match="adaptive, content, histogram.*magic"):
        video.detect_shots(tmp_path / "x.mp4", detector="magic")


def test_cuts_come_in_time_and_once():
    """What is told late would find its frames already given away."""
    a, b, c, d = (scene(seed, 150, (32, 18)) for seed in range(4))
    frames = np.concatenate([a, *mix(b, c, 16), d])
    found = shots.CutDetector("adaptive")
    told = []
    for index, image in enumerate(frames):
        settled = found.settled
        for cut in found.add(index, index / 24, np.ascontiguousarray(image)):
            assert settled <= cut <= index
            told.append(cut)
        assert settled <= found.settled <= index + 1
    told += found.finish()
    assert found.settled == len(frames)
    np.testing.assert_allclose(told, [150, 292, 434], atol=2)
    assert len(told) == len(set(told)) == 3


def test_streaming_scores_equal_scores_of_the_whole():
    frames = np.concatenate([scene(1, 70, (32, 18)), scene(2, 70, (32, 18))])
    vectors = np.stack([transitions.tiny(f) for f in frames])
    whole = transitions.score(
        transitions.features(transitions.Distances(vectors), np.arange(140))
    )
    stream = transitions.Gradual()
    for image in frames:
        stream.add(image, [])
    stream.finish([])
    for place, value in stream._scores.items():
        assert value == pytest.approx(whole[place], abs=2e-3)


def test_faster_score_is_that_of_the_library():
    from scenedetect import FrameTimecode, detectors

    library = detectors.AdaptiveDetector(min_scene_len=1)
    faster = shots._faster(detectors.AdaptiveDetector)(min_scene_len=1)
    frames = [*scene(1, 20), *scene(2, 20)]
    for index, image in enumerate(frames):
        time = FrameTimecode(index, 24.0)
        image = np.ascontiguousarray(image)
        cuts = library.process_frame(time, image)
        assert faster.process_frame(time, image) == cuts
        assert faster._frame_score == pytest.approx(library._frame_score)
        assert bool(cuts) == (index == 22)


def test_whole_steps_sample_what_nearest_samples():
    plane = np.random.default_rng(0).integers(0, 256, (72, 128), np.uint8)
    for width, height in [(16, 9), (64, 36), (15, 9), (8, 9), (128, 72)]:
        expected = cv2.resize(
            plane, (width, height), interpolation=cv2.INTER_NEAREST
        )
        found = decode._sample(plane, width, height)
        np.testing.assert_array_equal(found, expected)
