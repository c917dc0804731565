"""AutoAugment against PIL: each operation at each level, and whole sub-policies."""

import collections

import augment_oracle
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.augment import AutoAugment, policies
from tf_simclr.augment.autoaugment import Effects, apply_effects, stack_effects

OPERATIONS = (
    "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "invert", "solarize", "posterize", "autocontrast",
    "equalize", "color", "contrast", "brightness", "sharpness",
)  # fmt: skip


def make_images(size):
    """Noise, waves of low contrast in noise, and two plain halves: uint8 [3, size, size, 3]."""
    rng = np.random.default_rng(0)
    noise, x = rng.integers(0, 256, (size, size, 3)), np.linspace(0, 3, size)
    waves = 90 + 60 * np.sin(x[:, None, None] + np.arange(3)) * np.cos(x[:, None]) + noise / 12
    halves = np.where(x[:, None, None] > 1.2, [200, 10, 255], [77, 77, 3]) + np.zeros((size, size, 3))
    return np.stack((noise, waves, halves)).astype(np.uint8)


def planes_of(images):
    return tf.cast(tf.transpose(images, (0, 3, 1, 2)), tf.float32)


def images_of(planes):
    return np.transpose(planes, (0, 2, 3, 1))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [20, 33])
def test_operations_equal_pil(name, size):
    cases = [(level, sign) for level in range(10) for sign in (1, -1)]
    effects = stack_effects([policies.effect(name, level, sign, size) for level, sign in cases])
    for image in make_images(size):
        images = np.broadcast_to(image, (len(cases), size, size, 3))
        result = images_of(apply_effects(planes_of(images), Effects(*map(tf.constant, effects))))
        exact = np.stack([augment_oracle.exact_operation(image, name, *case) for case in cases])
        np.testing.assert_array_equal(result, exact)
        pil = np.stack([augment_oracle.pil_operation(image, name, *case) for case in cases])
        shortfall = exact.astype(int) - pil
        assert set(np.unique(shortfall)) <= {0, 1} and np.mean(shortfall) < 0.02


def test_operations_change_nothing_at_the_lowest_level():
    planes = planes_of(make_images(20))
    for name in set(OPERATIONS) - {"invert", "autocontrast", "equalize"}:
        effects = stack_effects([policies.effect(name, 0, 1, 20)] * 3)
        np.testing.assert_array_equal(apply_effects(planes, Effects(*map(tf.constant, effects))), planes)


def draws_of(sub_policy, applied, signs, chosen=0.0):
    """The numbers that choose a sub-policy, which of its two operations are applied, and their signs."""
    chances = [0.0 if one else 0.999 for one in applied]
    return [chosen, (sub_policy + 0.5) / 25, *chances, *[0.75 if sign > 0 else 0.25 for sign in signs]]


@pytest.mark.parametrize("policy", policies.POLICIES)
def test_sub_policies_equal_pil(policy):
    image, sub_policies = make_images(24)[1], policies.POLICIES[policy]
    signs = [(1, -1), (-1, 1)]
    draws = [draws_of(number, (True, True), signs[number % 2]) for number in range(25)]
    images = np.broadcast_to(image, (25, 24, 24, 3))
    result = 255.0 * images_of(AutoAugment(policy)(planes_of(images) / 255.0, np.float32(draws)))
    for number, operations in enumerate(sub_policies):
        expected = image
        for operation, sign in zip(operations, signs[number % 2], strict=True):
            if operation.probability > 0:
                expected = augment_oracle.exact_operation(expected, operation.name, operation.level, sign)
        np.testing.assert_allclose(result[number], expected, atol=1e-3, err_msg=str(operations))


COUNTS = {
    "cifar10": {
        "equalize": 9, "autocontrast": 7, "sharpness": 5, "translate_y": 5, "color": 5, "brightness": 4, "solarize": 4,
        "invert": 3, "contrast": 2, "translate_x": 2, "shear_y": 2, "rotate": 1, "posterize": 1,
    },
    "imagenet": {
        "equalize": 17, "solarize": 7, "rotate": 6, "color": 6, "posterize": 5, "invert": 3, "autocontrast": 2,
        "contrast": 2, "sharpness": 1, "shear_x": 1,
    },
}  # fmt: skip
# Of the probabilities and of the levels in the published tables, those without a meaning left out.
SUMS = {"cifar10": (26.5, 187), "imagenet": (31.0, 159)}


@pytest.mark.parametrize("policy", policies.POLICIES)
def test_a_policy_has_25_pairs_of_these_operations(policy):
    pairs = policies.POLICIES[policy]
    assert len(pairs) == 25 and all(len(pair) == 2 for pair in pairs)
    assert collections.Counter(operation.name for pair in pairs for operation in pair) == COUNTS[policy]
    assert sum(operation.probability for pair in pairs for operation in pair) == pytest.approx(SUMS[policy][0])
    assert sum(operation.level for pair in pairs for operation in pair) == SUMS[policy][1]


def test_each_operation_has_its_own_chance_and_each_image_its_own_sub_policy():
    image = make_images(20)[1]
    posterize_and_rotate = policies.POLICIES["imagenet"][0]
    assert [one.name for one in posterize_and_rotate] == ["posterize", "rotate"]
    choices = [(True, True), (True, False), (False, True), (False, False)]
    draws = [draws_of(0, applied, (1, 1)) for applied in choices]
    draws += [draws_of(13, (True, True), (1, 1), chosen=0.7), draws_of(1, (True, False), (1, 1))]
    images = np.broadcast_to(image, (6, 20, 20, 3))
    result = 255.0 * images_of(AutoAugment("imagenet", 0.5)(planes_of(images) / 255.0, np.float32(draws)))
    for found, applied in zip(result, choices, strict=False):
        expected = image
        for operation, is_applied in zip(posterize_and_rotate, applied, strict=True):
            if is_applied:
                expected = augment_oracle.pil_operation(expected, operation.name, operation.level, 1)
        np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(result[4], image, atol=1e-3)  # not chosen
    np.testing.assert_allclose(result[5], augment_oracle.pil_operation(image, "solarize", 5, 1), atol=1e-3)


def test_unknown_policies_are_refused():
    with pytest.raises(ValueError, match="`AutoAugment.policy` must be one of cifar10, imagenet. Received: 'svhn'"):
        AutoAugment("svhn")
