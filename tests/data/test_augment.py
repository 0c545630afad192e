"""Colour views against a slow transcription of METHOD's two policies."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from vivi_keras.data import augment, colour_views, sampling


def random_images(num_images=6, height=5, width=7, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.integers(
        0, 256, (num_images, height, width, 3), dtype=np.uint8
    )
    # Black, white, greys, pure colours and ties between channels.
    images[0, :, 0] = generator.integers(0, 256, (height, 1))
    images[1, 0, :3] = [[0, 0, 0], [255, 255, 255], [1, 1, 1]]
    images[2, 1, :6] = 255 * np.array(
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]]
    )
    return images


def exemplar_pixel(pixel, draws):
    """METHOD: S,V <- x^(2^U[-2,2]) * 2^U[-.5,.5] + U[-.1,.1]; H += ..."""
    hue, *channels = colorsys.rgb_to_hsv(*(pixel / 255))
    hue = (hue + -0.1 + 0.2 * draws[0]) % 1
    changed = []
    for channel, (a, b, c) in zip(
        channels, (draws[1:4], draws[4:7]), strict=True
    ):
        channel = channel ** (2 ** (-2 + 4 * a)) * 2 ** (-0.5 + b)
        changed.append(np.clip(channel - 0.1 + 0.2 * c, 0, 1))
    return colorsys.hsv_to_rgb(hue, *changed)


def rotation_pixel(pixel, draws):
    """METHOD: brightness +-32/255, saturation 0.5..1.5, grey p = 0.66."""
    pixel = np.clip(pixel / 255 + 32 / 255 * (2 * draws[0] - 1), 0, 1)
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    saturation = min(saturation * (0.5 + draws[1]), 1)
    pixel = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    return np.full(3, pixel.mean()) if draws[2] < 0.66 else pixel


REFERENCES = {
    "exemplar": (exemplar_pixel, augment.exemplar_changes, 7),
    "rotation": (rotation_pixel, augment.rotation_changes, 3),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("policy", REFERENCES)
def test_policies_equal_the_slow_reference(policy, compiled):
    reference, _, num_draws = REFERENCES[policy]
    images = random_images()
    position = np.array([3, 0, 7, 2**40, 5, 11])
    keys = sampling.fold(augment._COLOUR, 5, 9, position)
    draws = sampling.uniforms(keys, num_draws).astype(float)
    expected = [
        [[reference(pixel, row) for pixel in line] for line in image]
        for image, row in zip(images, draws, strict=True)
    ]
    result = colour_views(images, (5, 9), policy, position, compiled=compiled)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_rotation_draws_cover_grey_and_colour():
    draws = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.659], [0.5, 0.5, 0.661]])
    grey = augment.rotation_changes(tf.constant(draws, tf.float32))[:, 2]
    np.testing.assert_array_equal(grey, [1, 1, 0])


def test_no_policy_only_scales():
    images = random_images()
    np.testing.assert_allclose(
        colour_views(images, 0, None), images / 255, atol=1e-7
    )


@pytest.mark.parametrize("policy", REFERENCES)
def test_an_image_depends_on_seed_and_position_alone(policy):
    images = random_images()
    whole = colour_views(images, (1, 2), policy).numpy()
    part = colour_views(images[2:5], (1, 2), policy, np.arange(2, 5))
    np.testing.assert_allclose(part, whole[2:5], atol=1e-6)
    other = colour_views(images, (1, 3), policy).numpy()
    assert (np.abs(other - whole).max(axis=(1, 2, 3)) > 0.01).all()
    same = np.repeat(images[3:4], 4, axis=0)
    copies = colour_views(same, 1, policy).numpy()
    assert (np.abs(copies[1:] - copies[:-1]).max(axis=(1, 2, 3)) > 0.01).all()


@pytest.mark.parametrize("policy", [*REFERENCES, None])
def test_compiles_under_xla_with_a_step_tensor(policy):
    images = tf.constant(random_images())

    @tf.function(jit_compile=True)
    def compiled(step):
        return colour_views(images, (7, step), policy)

    @tf.function
    def graph(step):
        return colour_views(images, tf.stack([7, step]), policy)

    expected = colour_views(images, (7, 31), policy, compiled=False)
    for function in (compiled, graph):
        np.testing.assert_allclose(
            function(tf.constant(31)), expected, atol=2e-5
        )


def test_works_inside_tf_data():
    images = random_images()
    batches = tf.data.Dataset.from_tensors(images).map(
        lambda batch: colour_views(batch, 3)
    )
    np.testing.assert_allclose(
        next(iter(batches)), colour_views(images, 3), atol=1e-6
    )


def test_bad_arguments():
    images = random_images()
    with pytest.raises(ValueError, match="policy.*'colour'"):
        colour_views(images, 0, "colour")
    with pytest.raises(ValueError, match="uint8.*Got: float64"):
        colour_views(images / 255, 0)
    with pytest.raises(ValueError, match=r"N, H, W, 3.*\(6, 5, 7, 1\)"):
        colour_views(images[..., :1], 0)


def python_mix(word):
    word ^= word >> 16
    word = word * 0x7FEB352D % 2**32
    word ^= word >> 15
    word = word * 0x846CA68B % 2**32
    return word ^ word >> 16


def test_keys_and_draws_equal_the_python_hash():
    words = (-3, 2**40 + 17, 5)
    key = 0x9E3779B9
    for word in words:
        for half in (word & 0xFFFFFFFF, word >> 32 & 0xFFFFFFFF):
            key = python_mix((key * 0x01000193 + half) % 2**32)
    keys = sampling.fold(-3, np.array([2**40 + 17]), 5)
    assert keys.tolist() == [key]
    expected = [
        python_mix(python_mix((key ^ python_mix(n)) * 0x01000193 % 2**32)) >> 8
        for n in range(1, 5)
    ]
    draws = sampling.uniforms(keys, 4)[0]
    np.testing.assert_array_equal(draws, np.array(expected) / 2**24)


def test_draws_are_uniform_and_independent():
    keys = sampling.fold(1, np.arange(20000))
    draws = sampling.uniforms(keys, 3)
    counts = np.stack(
        [np.histogram(column, 20, (0, 1))[0] for column in draws.T]
    )
    # 19 degrees of freedom: above 45 with probability 0.0007.
    assert ((counts - 1000) ** 2 / 1000).sum(axis=1).max() < 45
    neighbours = np.corrcoef(np.concatenate([draws[1:], draws[:-1]], axis=1).T)
    assert np.abs(neighbours - np.eye(6)).max() < 0.03


def test_integers_stay_below_their_size():
    largest = np.float32(1 - 2**-24)
    sizes = np.array([1, 3, 2**24, 2**30 + 1])
    result = sampling.integers(largest, sizes)
    assert (result < sizes).all()
    assert (sampling.integers(np.float32(0), sizes) == 0).all()


@pytest.mark.parametrize("policy", ["exemplar", "rotation"])
def test_strength_scales_the_change(policy):
    images = np.random.default_rng(0).integers(0, 256, (64, 6, 10, 3))
    images = images.astype("uint8")

    def change(strength):
        views = colour_views(images, 5, policy, strength=strength)
        return np.abs(views.numpy() - images / 255).mean(axis=(1, 2, 3))

    # Back from hue, saturation and value: equal up to rounding.
    assert change(0.0).max() < 1e-5
    np.testing.assert_array_equal(
        colour_views(images, 5, policy),
        colour_views(images, 5, policy, strength=1),
    )
    weak, whole = change(0.25), change(1.0)
    assert 0.1 * whole.mean() < weak.mean() < 0.5 * whole.mean()


@pytest.mark.parametrize("policy", ["exemplar", "rotation"])
def test_grey_and_blur_follow_the_policy(policy):
    images = random_images(200, 12, 224)
    plain = colour_views(images, 3, policy).numpy()
    grey = colour_views(images, 3, policy, grey=0.3).numpy()
    changed = np.abs(grey - plain).max(axis=(1, 2, 3)) > 1e-3
    np.testing.assert_allclose(grey[~changed], plain[~changed], atol=1e-6)
    mean = np.broadcast_to(plain.mean(axis=-1, keepdims=True), plain.shape)
    np.testing.assert_allclose(grey[changed], mean[changed], atol=1e-6)
    blurred = colour_views(images, 3, policy, blur=0.6).numpy()
    moved = np.abs(blurred - plain).max(axis=(1, 2, 3)) > 1e-6
    if policy == "exemplar":  # the other one has its own grey
        assert 0.2 < changed.mean() < 0.4
    assert 0.45 < moved.mean() < 0.75
    np.testing.assert_allclose(blurred[~moved], plain[~moved], atol=1e-6)
    with pytest.raises(ValueError, match="policy must be given with grey"):
        colour_views(images, 3, None, blur=0.5)


def test_blur_of_narrow_images():
    images = random_images(3, 2, 224)
    views = colour_views(images, 3, blur=1.0).numpy()
    assert np.isfinite(views).all() and views.std() > 0.01
    with pytest.raises(ValueError, match="grey must be"):
        colour_views(images, 3, grey=2.0)
    with pytest.raises(ValueError, match="blur must be"):
        colour_views(images, 3, blur=float("nan"))


def test_blur_equals_scipy():
    images = random_images(4, 60, 224).astype("float32") / 255
    sigmas = np.array([0.0, 0.5, 1.0, 2.0], "float32")
    found = np.asarray(augment.blurred(tf.constant(images), sigmas))
    np.testing.assert_allclose(found[0], images[0], atol=1e-6)
    for image, sigma, result in zip(
        images[1:], sigmas[1:], found[1:], strict=True
    ):
        expected = ndimage.gaussian_filter(
            image.astype(float), (sigma, sigma, 0), radius=(6, 6, 0)
        )
        np.testing.assert_allclose(result, expected, atol=1e-5)
    # A picture of half the size is blurred half as much.
    small = np.asarray(
        augment.blurred(tf.constant(images[:, ::2, ::2]), sigmas)
    )
    expected = ndimage.gaussian_filter(
        images[3, ::2, ::2].astype(float), (1, 1, 0), radius=(3, 3, 0)
    )
    np.testing.assert_allclose(small[3], expected, atol=1e-5)
