"""Pure sampling functions: records, shots, frames and crops."""

import numpy as np
import pytest
import tensorflow as tf
from data_helpers import encode_jpeg, frame_pixels

from vivi_keras.data import crops, sampling


@pytest.mark.parametrize("num_records", [1, 2, 3, 10, 257])
def test_each_epoch_is_a_permutation(num_records):
    positions = np.arange(5 * num_records)
    found = sampling.records_of_positions(positions, num_records, seed=4)
    for epoch in found.reshape(5, num_records):
        np.testing.assert_array_equal(np.sort(epoch), range(num_records))


def test_first_records_of_epochs_are_uniform():
    positions = 6 * np.arange(3000)
    found = sampling.records_of_positions(positions, 6, seed=1)
    counts = np.bincount(found, minlength=6)
    # 5 degrees of freedom: above 22 with probability 0.0005.
    assert ((counts - 500) ** 2 / 500).sum() < 22


def test_positions_far_ahead_cost_nothing():
    far = np.array([10**15, 10**15 + 1])
    found = sampling.records_of_positions(far, 1000, seed=0)
    assert ((found >= 0) & (found < 1000)).all()


@pytest.mark.parametrize("num_records", [3, 65536, 65537, 70_000])
def test_one_position_at_a_time_gives_the_same_records(num_records):
    generator = np.random.default_rng(1)
    ends = num_records * np.arange(1, 4)  # of epochs, inside of blocks
    positions = np.concatenate(
        [
            generator.integers(0, 9 * num_records, 200),
            *(ends + shift for shift in (-1, 0, 1)),
        ]
    )
    expected = sampling.records_of_positions(positions, num_records, seed=-5)
    found = [
        sampling.record_of_position(int(position), num_records, seed=-5)
        for position in positions
    ]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("num_records", [2, 10, 257, 65535, 65538, 10**9 + 7])
def test_records_equal_tensorflow_s_index_shuffle(num_records):
    positions = np.random.default_rng(0).integers(0, 2**62, 100)
    found = sampling.records_of_positions(positions, num_records, seed=3)
    epochs = positions // num_records
    keys = [sampling.fold(3, 1, epochs, part) for part in range(3)]
    expected = tf.raw_ops.RandomIndexShuffle(
        index=positions % num_records,
        seed=np.stack(keys, axis=1),
        max_index=tf.constant(num_records - 1, tf.int64),
        rounds=4,
    )
    np.testing.assert_array_equal(found, expected)


def test_frames_equal_those_that_tensorflow_decodes():
    jpegs = [
        encode_jpeg(frame_pixels(1, k, height=97 + k, width=131), quality=90)
        for k in range(3)
    ]
    for jpeg in jpegs:
        np.testing.assert_array_equal(
            crops.decode(jpeg), tf.io.decode_jpeg(jpeg, channels=3)
        )
    with pytest.raises(ValueError, match="not a complete JPEG"):
        crops.decode(jpegs[0][: len(jpegs[0]) // 2])


def slow_choice(shot_index, num_shots, frames_per_shot, draws):
    """The rule of `choose_frames`, shot by shot."""
    available = shot_index[-1] + 1
    offset = int(draws[0] * (max(available - num_shots, 0) + 1))
    draws = np.reshape(draws[1:], (num_shots, frames_per_shot))
    frames, mask = [], []
    for shot in range(num_shots):
        members = np.flatnonzero(shot_index == offset + shot)
        mask.append(len(members) > 0)
        if not len(members):
            frames.append([0] * frames_per_shot)
        elif len(members) >= frames_per_shot:
            spare = len(members) - frames_per_shot + 1
            places = [int(draw * spare) for draw in sorted(draws[shot])]
            frames.append([members[p + i] for i, p in enumerate(places)])
        else:
            frames.append(
                [
                    members[i * len(members) // frames_per_shot]
                    for i in range(frames_per_shot)
                ]
            )
    return frames, mask


def test_chosen_frames_equal_the_slow_rule():
    generator = np.random.default_rng(0)
    for _ in range(60):
        sizes = generator.integers(1, 9, generator.integers(1, 9))
        shot_index = np.repeat(np.arange(len(sizes)), sizes)
        num_shots, frames_per_shot = generator.integers(1, 6, 2).tolist()
        draws = generator.random(1 + num_shots * frames_per_shot, np.float32)
        frames, mask = sampling.choose_frames(
            shot_index, num_shots, frames_per_shot, draws
        )
        expected = slow_choice(shot_index, num_shots, frames_per_shot, draws)
        np.testing.assert_array_equal(frames, expected[0])
        np.testing.assert_array_equal(mask, expected[1])
        for shot in range(min(num_shots, len(sizes))):
            chosen = shot_index[frames[shot]]
            distinct = len(set(frames[shot].tolist()))
            assert distinct == min(frames_per_shot, sizes[chosen[0]])


def draw_boxes(num_boxes, height, width):
    draws = sampling.uniforms(
        sampling.fold(2, np.arange(num_boxes)),
        crops.DRAWS_PER_CROP,
    )
    heights, widths = np.full(num_boxes, height), np.full(num_boxes, width)
    return crops.inception_boxes(heights, widths, draws)


def slow_box(height, width, draws):
    """The rule of `inception_boxes`, try by try."""
    for area, aspect in zip(draws[:10], draws[10:20], strict=True):
        area = (0.05 + 0.95 * area) * height * width
        aspect = 3 / 4 + (4 / 3 - 3 / 4) * aspect
        h, w = round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)
        if h <= height and w <= width:
            h, w = max(h, 1), max(w, 1)
            top = int(draws[-3] * (height - h + 1))
            left = int(draws[-2] * (width - w + 1))
            return [top, left, h, w]
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize("size", [(60, 100), (100, 60), (40, 400), (1, 1)])
def test_boxes_equal_the_slow_rule(size):
    draws = sampling.uniforms(
        sampling.fold(2, np.arange(400)), crops.DRAWS_PER_CROP
    )
    expected = [slow_box(*size, row.astype(float)) for row in draws]
    boxes = draw_boxes(400, *size)
    # float32 against float64: a side may round to the other neighbour.
    assert np.abs(boxes - expected).max() <= 1
    assert (boxes != expected).mean() < 0.01


def test_boxes_cover_the_range_and_stay_inside():
    boxes = draw_boxes(3000, 240, 320)
    top, left, height, width = boxes.T
    assert (boxes[:, 2:] > 0).all() and (boxes[:, :2] >= 0).all()
    assert (top + height <= 240).all() and (left + width <= 320).all()
    area = height * width / (240 * 320)
    assert 0.045 < area.min() < 0.06 and area.max() > 0.95
    aspect = width / height
    assert 0.73 < aspect.min() < 0.78 and 1.3 < aspect.max() < 1.36
    assert (top == 0).any() and (top + height == 240).any()


@pytest.mark.parametrize(
    ("aspect", "expected"),
    [(1.0, [0, 20, 60, 60]), (2.0, [5, 0, 50, 100]), (0.5, [0, 35, 60, 30])],
)
def test_centre_box_is_the_largest(aspect, expected):
    boxes = crops.centre_boxes(np.array([60]), np.array([100]), aspect)
    assert boxes.tolist() == [expected]


def crop(pixels, real, draws, **arguments):
    jpegs = [encode_jpeg(image, quality=100) for image in pixels]
    return crops.crop_frames(jpegs, np.array(real), draws, **arguments)


def test_crops_equal_crops_of_the_whole_frame():
    pixels = [
        frame_pixels(video, 3, height=40 + video, width=70)
        for video in range(3)
    ]
    draws = np.random.default_rng(1).random(
        (3, 4, crops.DRAWS_PER_CROP), np.float32
    )
    real = [True, True, False]
    result = crop(pixels, real, draws, size=(24, 40))
    assert result.dtype == np.uint8 and result.shape == (3, 4, 24, 40, 3)
    assert (result[2] == 0).all()
    for k in range(2):
        height, width = pixels[k].shape[:2]
        top, left, h, w = crops.inception_boxes(
            np.full(4, height), np.full(4, width), draws[k]
        ).T
        for c in range(4):
            window = pixels[k][top[c] :, left[c] :][: h[c], : w[c]]
            expected = tf.image.resize(window, (24, 40)).numpy()
            if draws[k, c, -1] < 0.5:
                expected = expected[:, ::-1]
            assert np.abs(result[k, c] - expected).max() < 8
            assert np.abs(result[k, c] - expected).mean() < 1.5


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(8, 12), (90, 64)])
def test_a_cut_is_a_float_resize_to_one_level(size, flip):
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    result = crops.cut(image, (3, 5, 40, 50), flip, size)
    expected = tf.image.resize(image[3:43, 5:55], size).numpy()
    expected = expected[:, ::-1] if flip else expected
    assert result.dtype == np.uint8 and result.flags.c_contiguous
    assert np.abs(result - expected).max() <= 1
    place = np.zeros_like(result)
    crops.cut(image, (3, 5, 40, 50), flip, size, place)
    np.testing.assert_array_equal(place, result)


def test_no_crop_is_the_unflipped_centre():
    pixels = [frame_pixels(1, 2, height=48, width=80)]
    draws = np.zeros((1, 1, crops.DRAWS_PER_CROP), np.float32)
    result = crop(pixels, [True], draws, size=(48, 48), crop=None)
    assert np.abs(result[0, 0] - pixels[0][:, 16:64].astype(int)).max() < 5


def test_frames_of_a_shot_are_so_far_apart():
    shot_index = np.repeat([0, 1, 2], [12, 3, 1])
    seconds = np.concatenate(
        [0.1 * np.arange(12), 2 + 5.0 * np.arange(3), [20.0]]
    ).astype(np.float32)
    random, firsts = np.random.default_rng(0), set()
    for _ in range(300):
        draws = random.random(1 + 3 * 3, np.float32)
        frames, _ = sampling.choose_frames(
            shot_index, 3, 3, draws, seconds, (0.25, 0.4)
        )
        plain, _ = sampling.choose_frames(shot_index, 3, 3, draws)
        apart = np.diff(seconds[frames[0]])
        assert 0.299 < apart[0] < 0.401
        # The last frame is repeated where no other one is near.
        assert 0.299 < apart[1] < 0.401 or (
            apart[1] == 0 and seconds[frames[0, 1]] > 0.8
        )
        firsts.add(int(frames[0, 0]))
        # Shots without two such frames are as without a gap.
        np.testing.assert_array_equal(frames[1:], plain[1:])
    assert firsts == {*range(9)}
