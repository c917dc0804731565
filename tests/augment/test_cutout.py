"""Cutout against PIL's rectangles, and TensorFlow Addons where it can be imported."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw

from tf_simclr.augment import Cutout

DRAWS = np.float32([[0.2, 0.12, 0.92], [0.6, 0.51, 0.51], [0.1, 0.99, 0.0], [0.4, 0.31, 0.72]])


def cut(images, operator, draws=DRAWS):
    return np.stack(operator(tf.unstack(tf.cast(images, tf.float32) / 255.0, axis=-1), draws), axis=-1)


@pytest.mark.parametrize(("size", "radius"), [(20, 5), (32, 8), (27, 7)])
def test_cutout_equals_pil(size, radius):
    images = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
    result = cut(images, Cutout(0.5))
    for image, (chance, row, column), found in zip(images, DRAWS, result, strict=True):
        picture = Image.fromarray(image).convert("RGB")
        if chance < 0.5:
            top, left = int(row * size) - radius, int(column * size) - radius
            square = (left, top, left + 2 * radius - 1, top + 2 * radius - 1)
            ImageDraw.Draw(picture).rectangle(square, fill=(255, 0, 255))
        expected = np.asarray(picture)
        covered = np.all(expected == (255, 0, 255), axis=-1, keepdims=True)
        np.testing.assert_allclose(found, np.where(covered, 0.5, expected / 255.0), atol=1e-6)


def test_cutout_equals_addons():
    addons = pytest.importorskip("tensorflow_addons")
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), np.uint8)
    centres = (DRAWS[:, 1:] * 24).astype(np.int32)
    expected = addons.image.cutout(tf.constant(images / 255.0, tf.float32), 12, offset=centres, constant_values=0.5)
    np.testing.assert_allclose(cut(images, Cutout()), expected, atol=1e-6)
