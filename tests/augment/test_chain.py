"""What holds for every operator, and for operators in a row."""

import dataclasses
from typing import ClassVar

import augment_oracle
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr import augment
from tf_simclr.augment import (
    Augmentation,
    AutoAugment,
    ColorJitter,
    Cutout,
    GaussianBlur,
    GaussianNoise,
    Operator,
    RandomCrop,
    RandomFlip,
    RandomGrayscale,
    RandomRotation,
    Sobel,
    example_keys,
    simclr_chain,
)
from tf_simclr.augment.draws import uniform

# Every operator that a chain may have. The numbers of the streams are part of what a seed means; 10 is a shared crop's.
STREAMS = {
    RandomCrop: 0, RandomFlip: 1, ColorJitter: 2, RandomGrayscale: 3, GaussianBlur: 4, GaussianNoise: 5,
    RandomRotation: 6, Cutout: 7, Sobel: 8, AutoAugment: 9,
}  # fmt: skip
OPERATORS = [operator for operator in STREAMS if operator is not RandomCrop]


@dataclasses.dataclass(frozen=True)
class Invert(Operator):
    """An operator that a user may write; it counts how often Python runs it."""

    num_draws: ClassVar[int] = 3
    num_calls: ClassVar[int] = 0

    probability: float = 0.5
    stream: int = 77

    def __call__(self, planes, draws):
        Invert.num_calls += 1
        chosen = draws[:, 2, tf.newaxis, tf.newaxis] < self.probability
        return [tf.where(chosen, 1.0 - plane, plane) for plane in planes]


def make_images(count, size=24):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def apply(operator, images, draws):
    if operator.on_planes:
        return tf.stack(operator(tf.unstack(images, axis=1), draws), axis=1)
    return operator(images, draws)


def test_streams_are_unique_and_never_change():
    exported = [getattr(augment, name) for name in augment.__all__]
    assert {value for value in exported if isinstance(value, type) and hasattr(value, "num_draws")} == set(STREAMS)
    assert {type(operator) for operator in augment.OPERATORS.values()} <= set(STREAMS)
    assert [type(operator) for operator in simclr_chain()] == list(STREAMS)[: len(augment.SIMCLR_NAMES)]
    assert {operator: operator().stream for operator in STREAMS} == STREAMS
    assert len(set(STREAMS.values())) == len(STREAMS)


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_keep_the_range_and_change_nothing_at_probability_0(operator):
    images = np.random.default_rng(0).random((16, 3, 20, 20), np.float32)
    images[::2] = np.round(images[::2])
    draws = np.random.default_rng(1).uniform(0.2, 1.0, (16, operator.num_draws)).astype(np.float32)
    changed = apply(operator(probability=1.0), images, draws)
    assert tf.reduce_min(changed) >= 0 and tf.reduce_max(changed) <= 1 + 1e-6
    is_changed = np.abs(changed - images).max(axis=(1, 2, 3)) > 0.01
    # An operation of a policy has its own probability, and equalizes two colours to themselves.
    assert np.mean(is_changed) >= (0.3 if operator is AutoAugment else 1.0)
    off = operator(probability=0.0)
    assert off.is_identity and not operator().is_identity
    np.testing.assert_array_equal(apply(off, images, np.zeros_like(draws)), images)


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_give_the_same_pixels_with_xla(operator):
    images = np.random.default_rng(0).random((8, 3, 20, 20), np.float32)
    draws = np.random.default_rng(1).random((8, operator.num_draws), np.float32)
    compiled = tf.function(lambda images, draws: apply(operator(), images, draws), jit_compile=True)
    np.testing.assert_allclose(compiled(images, draws), apply(operator(), images, draws), atol=1e-5)


def test_another_operator_moves_no_number_of_the_others():
    images, keys = make_images(8), example_keys(2, 5, 8)
    before = Augmentation(20, seed=4)(images, keys).numpy()
    chain = simclr_chain() + (Invert(),)
    after = Augmentation(20, branches=(chain, chain), seed=4)(images, keys)
    chosen = uniform(4, keys, [0, 1], {77: 3})[77].numpy()[:, 2] < 0.5
    assert 0 < chosen.sum() < 16
    np.testing.assert_allclose(after, np.where(chosen[:, None, None, None], 1 - before, before), atol=1e-6)
    for position in (1, 3, 5):
        middle = (*chain[:position], Invert(probability=0.0), *chain[position:-1])
        unchanged = Augmentation(20, branches=(middle, middle), seed=4)(images, keys)
        np.testing.assert_array_equal(unchanged, before)


def test_a_flip_anywhere_mirrors_the_same_images():
    images, keys = make_images(8), example_keys(2, 5, 8)
    first = (RandomCrop(), RandomFlip(), RandomGrayscale(0.5))
    last = (RandomCrop(), RandomGrayscale(0.5), RandomFlip())
    views = [Augmentation(20, branches=(chain,))(images, keys) for chain in (first, last)]
    np.testing.assert_allclose(*views, atol=1e-5)


def test_blur_gets_pixels_in_range():
    # Black and white squares: the hardest for bicubic interpolation to stay in range.
    images, keys = np.kron(make_images(4, 5) // 128 * 255, np.ones((1, 4, 4, 1), np.uint8)), example_keys(0, 0, 4)
    crops, blurred = (
        Augmentation(40, branches=((RandomCrop(area=(0.1, 0.3)), GaussianBlur(probability)),))(images, keys).numpy()
        for probability in (0.0, 1.0)
    )
    sigma = 0.1 + 1.9 * uniform(0, keys, [0], {4: 2})[4].numpy()[:, 1]
    for crop, view, value in zip(crops, blurred, sigma, strict=True):
        np.testing.assert_allclose(view, augment_oracle.blur(crop, value), atol=1e-5)


def test_operators_in_a_row_are_compiled_once():
    images, keys = make_images(8), example_keys(0, 0, 8)
    kept = []
    Invert.num_calls = 0
    for seed in range(3):
        chain = (RandomCrop(), ColorJitter(), Invert(0.25))
        kept.append(Augmentation(20, branches=(chain, chain), seed=seed))
        kept[-1](images, keys)
    assert Invert.num_calls == 1
    Augmentation(20, branches=((RandomCrop(), ColorJitter(), Invert(0.75)),) * 2)(images, keys)
    assert Invert.num_calls == 2


@pytest.mark.parametrize("jitter", [{"jitter_probability": 0.0}, {"jitter_strength": 0.0}])
def test_an_operator_that_changes_nothing_is_left_out(jitter, monkeypatch):
    images, keys = make_images(8), example_keys(0, 0, 8)
    expected = Augmentation(20, branches=((RandomCrop(), RandomFlip()),))(images, keys)
    for operator in OPERATORS[1:]:
        monkeypatch.delattr(operator, "__call__")
    chain = simclr_chain(**jitter, grayscale_probability=0.0, blur_probability=0.0)
    np.testing.assert_array_equal(Augmentation(20, branches=(chain,))(images, keys), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_sampler": "torch"}, "`RandomCrop.sampler` must be one of tensorflow, .* Received: 'torch'"),
        ({"brightness": "v1"}, "`ColorJitter.brightness` .* Received: 'v1'"),
        ({"crop_area": (0.5, 0.2)}, "`RandomCrop.area` must be two fractions"),
        ({"crop_area": (0.0, 1.0)}, "`RandomCrop.area`"),
        ({"crop_area": (0.5, 1.5)}, "`RandomCrop.area`"),
        ({"crop_area": (0.01, 0.05)}, "`RandomCrop.area` must reach 0.1"),
        ({"crop_aspect_ratio": (2.0, 1.0)}, "`RandomCrop.aspect_ratio`"),
        ({"jitter_strength": -0.5}, "`ColorJitter.strength`"),
        ({"jitter_strength": float("nan")}, "`ColorJitter.strength`"),
        ({"jitter_probability": -1.0}, "`ColorJitter.probability`"),
        ({"flip_probability": 1.5}, "`RandomFlip.probability` must be between 0 and 1. Received: 1.5"),
        ({"grayscale_probability": 2.0}, "`RandomGrayscale.probability`"),
        ({"blur_probability": -0.1}, "`GaussianBlur.probability`"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        simclr_chain(**settings)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ((), r"A branch must be a RandomCrop, .* Received: \(\)"),
        ((RandomFlip(), RandomCrop()), r"A branch must be a RandomCrop, .* Received: \(RandomFlip, RandomCrop\)"),
        ((RandomCrop(), RandomCrop(stream=9)), r"A branch must .* Received: \(RandomCrop, RandomCrop\)"),
        ((RandomCrop(), ColorJitter), r"A branch must .* Received: \(RandomCrop, type\)"),
        ((RandomCrop(), Invert(stream=2), ColorJitter()), "different streams, .* stream=2 for Invert and ColorJitter"),
        ((RandomCrop(), Invert(stream=65536)), "`stream` must be between 0 and 65535. Received: 65536"),
    ],
)
def test_invalid_chains(chain, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(32, branches=(simclr_chain(), chain))
