"""Shots: hard cuts, dissolves, fades, flashes; streaming is exact."""

import av
import cv2
import numpy as np
import pytest

from vivi_keras import video
from vivi_keras.video import decode, pictures, shots, transitions


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


def rows_of(frames):
    """Rows of all frames, chosen or not."""
    rows = transitions.Rows()
    made = []
    for index, image in enumerate(frames):
        reduced = pictures.reduce(np.ascontiguousarray(image))
        made.append(rows.add(pictures.describe(reduced, index, index)))
    return made


def test_features_do_not_depend_on_where_blocks_end():
    frames = np.concatenate([scene(1, 70, (64, 48)), scene(2, 70, (64, 48))])
    rows = rows_of(frames)
    whole = transitions.make_table(rows)
    reach = transitions.REACH
    for make in (transitions.cut_features, transitions.dissolve_features):
        expected = make(whole, np.arange(140))
        for start, stop in [(0, 13), (13, 70), (70, 71), (71, 140)]:
            first = max(0, start - reach)
            part = transitions.make_table(rows[first : stop + reach])
            found = make(part, np.arange(start, stop) - first)
            np.testing.assert_array_equal(found, expected[start:stop])


def test_distances_are_those_of_each_pair():
    frames = scene(3, 40, (64, 48))
    table = transitions.make_table(rows_of(frames))
    window = table.window(np.array([5, 20, 39]))
    colours = [
        cv2.resize(f, (32, 24), interpolation=cv2.INTER_AREA).astype(float)
        for f in frames
    ]
    for first, second in [(0, 0), (-3, 2), (4, -4), (-20, 2)]:
        expected = []
        for place in (5, 20, 39):
            a, b = (
                colours[min(max(place + o, 0), 39)] for o in (first, second)
            )
            expected.append(np.sqrt(np.mean((a - b) ** 2)))
        found = window.between(0, first, second)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_odds_grow_with_the_gap_between_pictures():
    scores = np.array([0.0, 0.2, 0.5, 0.9])
    for gap, factor in ((1 / 24, 1), (1 / 12, 1), (1 / 6, 2), (9.0, 3)):
        found = transitions.with_gaps(scores, np.full(4, gap))
        odds = factor * scores / (1 - scores)
        np.testing.assert_allclose(found, odds / (1 + odds), atol=1e-9)
    assert transitions.with_gaps(np.ones(1), np.ones(1)) == 1


def test_trees_are_walked_from_their_roots_to_a_leaf():
    with np.load(transitions.WEIGHTS) as stored:
        parts = [
            stored[f"cut_{name}"]
            for name in ("feature", "threshold", "left", "right", "value")
        ]
        start = float(stored["cut_start"])
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 2, (20, parts[0].max() + 1)).astype(np.float32)
    expected = []
    for row in inputs:
        total = start
        for feature, threshold, left, right, value in zip(*parts, strict=True):
            node = 0
            while left[node] != node:
                low = row[feature[node]] <= threshold[node]
                node = left[node] if low else right[node]
            total += float(value[node])
        expected.append(1 / (1 + np.exp(-total)))
    trees = transitions.Trees(*parts, start)
    np.testing.assert_allclose(trees(inputs), expected, rtol=1e-9)
    for row, value in zip(inputs, trees(inputs), strict=True):
        assert trees(row[None])[0] == value  # to the bit, however many


def walk_about(image, steps, size=(160, 90), speed=9):
    """A camera that turns over a large picture, few pictures a second."""
    width, height = size
    return [
        image[20 : 20 + height, place : place + width]
        for place in range(0, speed * steps, speed)
    ]


def view(seed):
    """A wide picture with detail: uint8 [130, 1600, 3]."""
    rng = np.random.default_rng(seed)
    image = np.full((130, 1600, 3), rng.uniform(40, 200, 3), np.float32)
    for size, gain in ((8, 30), (40, 50)):
        noise = rng.normal(0, 1, (130 // size + 2, 1600 // size + 2, 3))
        noise = cv2.resize(noise, (1600, 130), interpolation=cv2.INTER_CUBIC)
        image += gain * noise.astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def detected(frames, rate):
    """Cuts of frames given to the default detector one by one."""
    found = shots.CutDetector("adaptive")
    cuts = []
    for index, image in enumerate(frames):
        small = np.ascontiguousarray(image)
        cuts += found.add(index, index / rate, small)
    return cuts + found.finish()


@pytest.mark.parametrize("rate", [2, 5, 8, 12])
def test_a_turning_camera_at_few_frames_a_second(rate):
    parts = [walk_about(view(seed), 40, speed=17) for seed in range(3)]
    assert detected(sum(parts, []), rate) == [40, 80]


@pytest.mark.parametrize("speed", [4, 9])
@pytest.mark.parametrize("held", [2, 5, 15, 30])
def test_repeated_pictures_are_no_cuts(held, speed):
    parts = [walk_about(view(seed), 30, speed=speed) for seed in range(2)]
    frames = [image for image in sum(parts, []) for _ in range(held)]
    assert detected(frames, 60) == [30 * held]


def lit(image, channel):
    changed = image.astype(int)
    changed[..., channel] = np.minimum(255, changed[..., channel] + 120)
    changed[..., 2 - channel] //= 2
    return changed.astype(np.uint8)


@pytest.mark.parametrize("period", [3, 8, 12, 20, 40])
def test_coloured_lights_are_no_cuts(period):
    a, b = (
        walk_about(view(seed), n, speed=2) for seed, n in ((1, 200), (2, 100))
    )
    lights = [lit(x, 2 * (i // period % 2)) for i, x in enumerate(a)]
    assert detected(lights + b, 25) == [200]


def drawing(seed):
    """Four rectangles on one colour: uint8 [90, 160, 3]."""
    rng = np.random.default_rng(seed)
    image = np.full((90, 160, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(4):
        x, y, size = rng.integers((0, 0, 10), (140, 70, 40)).tolist()
        colour = rng.integers(0, 256, 3).tolist()
        cv2.rectangle(image, (x, y), (x + size, y + size), colour, -1)
    return image


def test_pictures_with_large_areas_of_one_colour():
    blank = [np.full((90, 160, 3), light, np.uint8) for light in (90, 255)]
    pictures = [*(drawing(seed) for seed in range(6)), *blank]
    frames = [image for image in pictures for _ in range(25)]
    assert detected(frames, 25) == [25 * n for n in range(1, 8)]


def test_a_still_of_minutes_is_settled_as_it_goes():
    a, b = scene(1, 1, (160, 90)), scene(2, 1, (160, 90))
    found = shots.CutDetector("adaptive")
    cuts = []
    for index in range(2000):
        cuts += found.add(index, index / 25, a[0] if index < 700 else b[0])
        assert index - found.settled < 256
        assert all(cut >= 700 for cut in cuts)
    assert cuts == [700]
    assert found.finish() == []


def test_a_slide_show():
    slides = [scene(seed, 1, (160, 90))[0] for seed in range(5)]
    frames = [slide for slide in slides for _ in range(50)]
    assert detected(frames, 25) == [50, 100, 150, 200]


def test_stills_of_a_second_and_less(tmp_path):
    """As in a fast slide show: all that moves is the cuts."""
    lengths = [12, 12, 24, 4, 32, 12, 4]
    stills = [scene(k, 1)[:1] for k in range(len(lengths))]
    parts = [
        np.repeat(still, length, axis=0)
        for still, length in zip(stills, lengths, strict=True)
    ]
    write(tmp_path / "a.mp4", parts, 12)
    assert cuts(tmp_path / "a.mp4") == np.cumsum(lengths)[:-1].tolist()
    # A flash in a still, after which it is there again, is no cut.
    parts = [np.repeat(stills[0], 30, axis=0) for _ in range(2)]
    flash = np.full((2, *stills[0].shape[1:]), 250, np.uint8)
    write(tmp_path / "b.mp4", [parts[0], flash, parts[1]], 12)
    assert cuts(tmp_path / "b.mp4") == []


def test_same_bits_again():
    frames = [*walk_about(view(1), 60), *walk_about(view(2), 60)]
    first, second = transitions.make_table(rows_of(frames)), None
    second = transitions.make_table(rows_of(frames))
    for name in ("distances", "motion", "mean", "deviation"):
        np.testing.assert_array_equal(
            getattr(first, name), getattr(second, name)
        )


def test_whole_steps_sample_what_nearest_samples():
    plane = np.random.default_rng(0).integers(0, 256, (72, 128), np.uint8)
    for width, height in [(16, 9), (64, 36), (15, 9), (8, 9), (128, 72)]:
        expected = cv2.resize(
            plane, (width, height), interpolation=cv2.INTER_NEAREST
        )
        found = decode._sample(plane, width, height)
        np.testing.assert_array_equal(found, expected)
