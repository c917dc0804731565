"""Blur against a convolution, the reference's numbers, and TensorFlow Addons where it can be imported."""

import augment_oracle
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.augment import GaussianBlur, blur


def apply_blur(images, sigma, where=None, radius=None, function=blur.gaussian_blur):
    radius = blur.kernel_radius(images.shape[1]) if radius is None else radius
    where = np.ones(len(images), bool) if where is None else where
    planes = tf.transpose(images, (0, 3, 1, 2))
    result = function(planes, tf.constant(sigma, tf.float32), tf.constant(where), radius)
    return tf.transpose(result, (0, 2, 3, 1)).numpy()


@pytest.mark.parametrize("function", [blur.blur_by_matrices, blur.blur_by_taps])
@pytest.mark.parametrize("size", [12, 32, 64])
def test_blur_is_a_convolution_with_a_sigma_per_image(size, function):
    images = np.random.default_rng(0).random((4, size, size, 3), np.float32)
    sigma = [0.1, 0.6, 1.3, 2.0]
    expected = [augment_oracle.blur(image, value) for image, value in zip(images, sigma, strict=True)]
    np.testing.assert_allclose(apply_blur(images, sigma, function=function), expected, atol=1e-5)
    mixed = apply_blur(images, sigma, np.array([True, False, True, False]), function=function)
    np.testing.assert_allclose(mixed[::2], expected[::2], atol=1e-5)
    np.testing.assert_array_equal(mixed[1::2], images[1::2])


def test_kernel_sizes_are_the_references():
    assert [2 * blur.kernel_radius(size) + 1 for size in (8, 32, 64, 96, 224)] == [1, 3, 7, 9, 23]


def test_blur_equals_the_reference(golden_dir):
    golden = np.load(golden_dir / "image_ops.npz")
    compared = 0
    for name in golden.files:
        image_name, _, operation = name.partition("/")
        if operation.startswith("blur_k"):
            kernel_size, sigma = operation.removeprefix("blur_k").split("_s")
            result = apply_blur(golden[image_name][None], [float(sigma)], radius=int(kernel_size) // 2)[0]
            expected = golden[name]
            np.testing.assert_allclose(result[: len(expected)], expected, atol=1e-5, err_msg=name)
            compared += 1
    assert compared == 18


def test_blur_equals_addons():
    addons = pytest.importorskip("tensorflow_addons")
    images = np.random.default_rng(0).random((3, 60, 60, 3), np.float32)
    sigma = [0.5, 1.1, 2.0]
    for image, value, result in zip(images, sigma, apply_blur(images, sigma), strict=True):
        expected = addons.image.gaussian_filter2d(image, 7, value, padding="CONSTANT", constant_values=0)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_only_the_chosen_images_are_blurred():
    images = tf.constant(np.random.default_rng(0).random((4, 3, 32, 32), np.float32))
    draws = tf.constant([[0.4, 0.9], [0.6, 0.9], [0.0, 0.2], [0.99, 0.9]])
    result = GaussianBlur(0.5)(images, draws)
    np.testing.assert_array_equal(result[1::2], images[1::2])
    low, high = blur.SIGMA_RANGE
    for index in (0, 2):
        sigma = low + (high - low) * float(draws[index, 1])
        expected = augment_oracle.blur(np.transpose(images[index], (1, 2, 0)), sigma)
        np.testing.assert_allclose(np.transpose(result[index], (1, 2, 0)), expected, atol=1e-5)
    np.testing.assert_array_equal(GaussianBlur(0.0)(images, draws), images)
