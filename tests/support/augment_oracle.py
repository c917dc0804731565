"""The augmentation as the reference does it: one image at a time, by tf.image. An oracle for the tests."""

import numpy as np
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

OPERATORS = ("brightness", "contrast", "saturation", "hue")


def make_images(count, low=0.0, high=1.0):
    """Noise with a few special pixels: black, white, gray, pure and two equal colours."""
    images = np.random.default_rng(1).random((count, 6, 9, 3), np.float32) * (high - low) + low
    images[:, 0, :3] = [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5)]
    images[:, 0, 3:8] = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.2, 0.7, 0.7), (0.7, 0.2, 0.7)]
    return images


def jitter(image, factors, order, additive_brightness=False):
    """Applies the operators (indices into OPERATORS) to `[H, W, 3]` in this order and clips after each."""
    for index in order:
        name, factor = OPERATORS[index], float(factors[index])
        if name == "brightness":
            image = image + factor if additive_brightness else image * factor
        else:
            image = getattr(tf.image, f"adjust_{name}")(image, factor)
        image = tf.clip_by_value(image, 0.0, 1.0)
    return image


def factors_of(draws, strength, additive_brightness=False):
    """Four uniform numbers -> brightness, contrast and saturation factors, hue shift."""
    low, high = max(1 - 0.8 * strength, 0), 1 + 0.8 * strength
    factors = np.concatenate((low + (high - low) * draws[:3], 0.2 * strength * (2 * draws[3:] - 1)))
    if additive_brightness:
        factors[0] = 0.8 * strength * (2 * draws[0] - 1)
    return factors


def blur(image, sigma):
    """Convolves `[S, S, 3]` with the reference's kernel, padding with zeros."""
    radius = int(image.shape[0] // 10 / 2)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        image = np.apply_along_axis(lambda line: np.convolve(line, kernel, mode="same"), axis, image)
    return image


def kolmogorov_smirnov(first, second):
    """The largest distance between two empirical distribution functions."""
    first, second = np.sort(first), np.sort(second)
    values = np.concatenate((first, second))
    shares = [np.searchsorted(sample, values, side="right") / len(sample) for sample in (first, second)]
    return np.abs(shares[0] - shares[1]).max()


def pil_operation(image, name, level, sign):
    """An operation of AutoAugment by PIL, on uint8 `[S, S, 3]`, with a level from 0 to 9 and a sign of 1 or -1."""
    picture, share, factor = Image.fromarray(image), level / 9, 1 + sign * 0.1 * level
    grey = (128, 128, 128)

    def affine(*matrix):
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, fillcolor=grey)

    operations = {
        "shear_x": lambda: affine(1, sign * 0.3 * share, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, sign * 0.3 * share, 1, 0),
        "translate_x": lambda: affine(1, 0, sign * 150 / 331 * share * len(image), 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, sign * 150 / 331 * share * len(image)),
        "rotate": lambda: picture.rotate(sign * 30 * share, fillcolor=grey),
        "invert": lambda: ImageOps.invert(picture),
        "solarize": lambda: ImageOps.solarize(picture, 256 - 256 * share),
        "posterize": lambda: ImageOps.posterize(picture, 8 - round(4 * share)),
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "color": lambda: ImageEnhance.Color(picture).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(picture).enhance(factor),
        "brightness": lambda: ImageEnhance.Brightness(picture).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(factor),
    }
    return np.asarray(operations[name]())


def exact_operation(image, name, level, sign):
    """`pil_operation` without rounding errors.

    PIL multiplies by fractions in floating point where a quotient of whole numbers is meant, and then rounds down; so
    it falls one short of some whole numbers.
    """
    pixels = image.astype(np.int64)
    if name == "autocontrast":
        low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
        return np.where(high > low, 255 * (pixels - low) // np.maximum(high - low, 1), pixels).astype(np.uint8)
    if name in ("color", "contrast", "brightness", "sharpness"):
        enhance = getattr(ImageEnhance, name.capitalize())(Image.fromarray(image)).enhance
        reference = np.asarray(enhance(0.0)).astype(np.int64)
        tenths = 10 + sign * level
        return np.clip((10 * reference + tenths * (pixels - reference)) // 10, 0, 255).astype(np.uint8)
    return pil_operation(image, name, level, sign)
