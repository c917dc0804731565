"""The two views: the whole chain against tf.image, where its random numbers come from, and its errors."""

import augment_oracle
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.augment import Augmentation, crop, example_keys

OFF = {
    "flip_probability": 0.0,
    "jitter_probability": 0.0,
    "grayscale_probability": 0.0,
    "blur_probability": 0.0,
}


def make_images(count, height=24, width=24):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def augment(augmentation, images, epoch=0):
    return augmentation(images, example_keys(epoch, 0, len(images)))


@pytest.mark.parametrize("sampler", crop.SAMPLERS)
def test_chain_equals_tf_image(sampler):
    images = make_images(12, 36, 50)
    augmentation = Augmentation(image_size=30, crop_sampler=sampler, seed=3)
    keys = example_keys(5, 0, 12)
    views = augmentation(images, keys)
    assert views.shape == (24, 30, 30, 3)
    assert views.dtype == tf.float32
    draws = {name: value.numpy() for name, value in augmentation._draw(keys).items()}
    boxes = crop.sample_boxes(draws["crop"], 36, 50, sampler=sampler).numpy()
    for index in range(24):
        y, x, height, width = boxes[index]
        image = tf.image.convert_image_dtype(images[index % 12, y : y + height, x : x + width], tf.float32)
        image = tf.image.resize(image, (30, 30), "bicubic")
        if draws["flip"][index] < 0.5:
            image = tf.image.flip_left_right(image)
        apply, factor_draws, order_draws = np.split(draws["jitter"][index], (1, 5))
        overshoot = 0.0
        if apply < 0.8:
            order = np.argsort(order_draws)
            if set(order[:2]) == {2, 3}:  # The one documented difference, see color_jitter.
                overshoot = max(float(tf.reduce_max(image)) - 1, -float(tf.reduce_min(image)), 0.0)
            image = augment_oracle.jitter(image, augment_oracle.factors_of(factor_draws, 1.0), order)
        if draws["grayscale"][index] < 0.2:
            image = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
        image = tf.clip_by_value(image, 0.0, 1.0)
        blurs, sigma_draw = draws["blur"][index]
        if blurs < 0.5:
            image = augment_oracle.blur(image.numpy(), 0.1 + 1.9 * sigma_draw)
        np.testing.assert_allclose(views[index], image, atol=1e-5 + 2 * overshoot)


@pytest.mark.parametrize("rank", [4, 5])
def test_same_pixels_with_xla_and_with_an_unknown_batch_size(rank):
    images = make_images(8) if rank == 4 else make_images(16).reshape(8, 2, 24, 24, 3)
    augmentation = Augmentation(image_size=24, seed=1)
    keys = example_keys(2, 0, 8)
    expected = augmentation(images, keys)
    np.testing.assert_allclose(tf.function(augmentation, jit_compile=True)(images, keys), expected, atol=1e-5)
    signature = (tf.TensorSpec((None, *images.shape[1:]), tf.uint8), tf.TensorSpec((None, 2), tf.int64))
    np.testing.assert_allclose(tf.function(augmentation, signature)(images, keys), expected, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_any_part_of_a_batch_has_the_pixels_that_it_has_in_the_whole(jit_compile):
    images, keys = make_images(8), example_keys(4, 0, 8)
    augmentation = Augmentation(image_size=16, seed=1)
    whole = tf.reshape(augmentation(images, keys), (2, 8, 16, 16, 3)).numpy()
    for rows in (slice(0, 4), slice(4, 8), slice(7, None, -3)):
        part = tf.function(augmentation, jit_compile=jit_compile)(images[rows], keys.numpy()[rows])
        np.testing.assert_allclose(tf.reshape(part, (2, -1, 16, 16, 3)), whole[:, rows], atol=1e-5)


def test_crops_are_those_of_the_boxes():
    images, keys = make_images(4), example_keys(1, 0, 4)
    augmentation = Augmentation(image_size=24, seed=2, **OFF)
    boxes = augmentation.crop_boxes(keys, 24, 24)
    views = crop.crop_and_resize(np.concatenate((images, images)) / np.float32(255), boxes, tf.zeros(8, bool), 24)
    expected = tf.clip_by_value(tf.transpose(views, (0, 2, 3, 1)), 0.0, 1.0)
    np.testing.assert_allclose(augmentation(images, keys), expected, atol=1e-5)
    assert len({tuple(box) for box in boxes.numpy()}) == 8


def test_pixels_follow_from_seed_epoch_example_and_view():
    images = make_images(6)
    keys = example_keys(7, 0, 6)
    views = Augmentation(image_size=16, seed=1)(images, keys)
    np.testing.assert_array_equal(Augmentation(image_size=16, seed=1)(images, keys), views)
    next_epoch = Augmentation(image_size=16, seed=1)(images, example_keys(8, 0, 6))
    next_examples = Augmentation(image_size=16, seed=1)(images, example_keys(7, 6, 6))
    next_seed = Augmentation(image_size=16, seed=2)(images, keys)
    for other in (views[6:], next_epoch[:6], next_examples[:6], next_seed[:6]):
        assert np.abs(views[:6] - other).max(axis=(1, 2, 3)).min() > 0.01


def test_bytes_and_floats_give_the_same_views():
    images = make_images(4)
    augmentation = Augmentation(image_size=16)
    floats = images.astype(np.float32) / 255
    np.testing.assert_allclose(augment(augmentation, images), augment(augmentation, floats), atol=1e-5)


def test_range():
    # Black and white squares: the hardest for bicubic interpolation to stay in range.
    images = np.kron(make_images(32, 6, 6) // 128 * 255, np.ones((1, 4, 4, 1), np.uint8))
    for settings in ({}, OFF):
        views = augment(Augmentation(image_size=32, **settings), images)
        assert tf.reduce_min(views) == 0.0
        assert 0.9 < tf.reduce_max(views) <= 1.0


def test_identity_when_everything_is_off():
    images = make_images(4)
    whole = Augmentation(image_size=24, crop_area=(1.0, 1.0), crop_aspect_ratio=(1.0, 1.0), **OFF)
    np.testing.assert_allclose(augment(whole, images), np.concatenate((images, images)) / 255.0, atol=1e-6)
    views = make_images(8).reshape(4, 2, 24, 24, 3)
    expected = np.concatenate((views[:, 0], views[:, 1])) / 255.0
    np.testing.assert_allclose(augment(whole, views), expected, atol=1e-6)
    mirrored = augment(Augmentation(image_size=24, **OFF | {"flip_probability": 1.0}), views)
    np.testing.assert_allclose(mirrored, expected[:, :, ::-1], atol=1e-6)


def test_shares_are_the_probabilities():
    images = np.broadcast_to(np.linspace(0.2, 0.6, 30, dtype=np.float32).reshape((10, 3)), (1000, 1, 10, 3))
    images = np.broadcast_to(images[:, np.newaxis], (1000, 2, 10, 10, 3))
    originals = np.concatenate((images[:, 0], images[:, 1]))

    def share(changed):
        return np.mean(np.any(changed, axis=(1, 2, 3)))

    def views(**settings):
        return augment(Augmentation(image_size=10, **OFF | settings), images).numpy()

    assert share(np.abs(views(flip_probability=0.3) - originals) > 1e-3) == pytest.approx(0.3, abs=0.04)
    assert share(np.abs(views(jitter_probability=0.7) - originals) > 1e-3) == pytest.approx(0.7, abs=0.04)
    gray = views(grayscale_probability=0.4)
    assert share(np.ptp(gray, axis=-1, keepdims=True) > 1e-3) == pytest.approx(0.6, abs=0.04)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "`image_size` .* Received: 0"),
        ({"crop_sampler": "torch"}, "`crop_sampler` must be one of tensorflow, .* Received: 'torch'"),
        ({"brightness": "v1"}, "`brightness` .* Received: 'v1'"),
        ({"crop_area": (0.5, 0.2)}, "`crop_area`"),
        ({"crop_area": (0.0, 1.0)}, "`crop_area`"),
        ({"crop_area": (0.5, 1.5)}, "`crop_area`"),
        ({"crop_area": (0.01, 0.05)}, "`crop_area` must reach 0.1"),
        ({"crop_aspect_ratio": (2.0, 1.0)}, "`crop_aspect_ratio`"),
        ({"jitter_strength": -0.5}, "`jitter_strength`"),
        ({"jitter_strength": float("nan")}, "`jitter_strength`"),
        ({"flip_probability": 1.5}, "`flip_probability`"),
        ({"blur_probability": -0.1}, "`blur_probability`"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**{"image_size": 32} | settings)


@pytest.mark.parametrize("shape", [(8, 8, 3), (2, 8, 8, 1), (2, 2, 8, 9, 3), (2, 3, 16, 16, 3)])
def test_invalid_shapes(shape):
    with pytest.raises(ValueError, match="`images` must have the shape .* Received"):
        augment(Augmentation(image_size=16), np.zeros(shape, np.uint8))
