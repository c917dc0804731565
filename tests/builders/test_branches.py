"""The branches of a run's augmentation, from the names of their operators."""

import numpy as np
import pytest
from tiny import tiny_encoder

from tf_simclr import ProjectionHead, SimCLR, builders
from tf_simclr.augment import (
    OPERATORS,
    SIMCLR_NAMES,
    WHOLE_IMAGE,
    GaussianNoise,
    RandomCrop,
    RandomFlip,
    example_keys,
    simclr_chain,
)
from tf_simclr.keras import keras
from tf_simclr.settings import RunConfig, override

CHANGES = {"color_jitter_strength": 0.5, "crop_min_area": 0.3, "blur_probability": 0.1, "crop_sampler": "uniform_area"}
CHAIN = simclr_chain(
    jitter_strength=0.5, crop_area=(0.3, 1.0), blur_probability=0.1, crop_sampler="uniform_area"
)  # what the settings make of SimCLR's


def build(**changes):
    settings = {f"augmentation.{name}": value for name, value in (CHANGES | changes).items()}
    return builders.build_augmentation(override(RunConfig(), {"data.image_size": 16} | settings))


@pytest.mark.parametrize(
    ("changes", "chain"),
    [
        ({}, CHAIN),
        ({"operators": SIMCLR_NAMES}, CHAIN),
        ({"operators": "crop"}, CHAIN[:1]),
        ({"operators": ()}, (WHOLE_IMAGE,)),
        ({"operators": "flip,jitter"}, (WHOLE_IMAGE, *CHAIN[1:3])),
        (
            {"operators": "crop,cutout,blur,sobel,rotation,flip,autoaugment_cifar10"},
            (
                CHAIN[0], OPERATORS["cutout"], CHAIN[4], OPERATORS["sobel"], OPERATORS["rotation"], CHAIN[1],
                OPERATORS["autoaugment_cifar10"],
            ),
        ),
        ({"more_operators": "gaussian_noise,sobel"}, (*CHAIN, GaussianNoise(), OPERATORS["sobel"])),
        ({"operators": "crop,grayscale", "more_operators": "sobel"}, (CHAIN[0], CHAIN[3], OPERATORS["sobel"])),
    ],
)  # fmt: skip
def test_a_branch_has_the_named_operators_in_order(changes, chain):
    assert build(**changes).branches == (chain, chain)
    assert build(**changes, one_branch=True).branches == (chain, (WHOLE_IMAGE,))


def test_operators_on_one_branch_leave_the_other_view_alone():
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    augmentation = build(operators="rotation,cutout,sobel,gaussian_noise,autoaugment_cifar10", one_branch=True)
    first, second = np.split(augmentation(images, example_keys(0, 0, 4)), 2)
    np.testing.assert_allclose(second, images / 255.0, atol=1e-6)
    assert np.abs(first - second).max(axis=(1, 2, 3)).min() > 0.1


def test_a_shared_crop_is_cut_out_for_both_views():
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    augmentation = build(operators="flip", one_branch=True, shared_crop=True)
    assert augmentation.shared_crop == RandomCrop("uniform_area", (0.3, 1.0), stream=10)
    keys = example_keys(0, 0, 4)
    first, second = np.split(augmentation(images, keys), 2)
    is_mirrored = ~np.all(np.isclose(first, second, atol=1e-5), axis=(1, 2, 3))
    np.testing.assert_allclose(first[is_mirrored], second[is_mirrored, :, ::-1], atol=1e-5)
    assert np.abs(second - images / 255.0).max(axis=(1, 2, 3)).min() > 0.1
    assert 0 < is_mirrored.sum() < 4 and isinstance(augmentation.branches[0][1], RandomFlip)


def test_learns_to_tell_images_apart_with_operators_on_one_branch(photos):
    keras.utils.set_random_seed(0)
    augmentation = build(operators="cutout,jitter", one_branch=True)
    model = SimCLR(tiny_encoder("float32"), ProjectionHead(2, 8), image_size=16, augmentation=augmentation)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    images = photos[:, ::2, ::2]
    history = model.fit(images, batch_size=16, epochs=150, verbose=0).history["contrastive_top_1_accuracy"]
    assert np.mean(history[:5]) < 0.35 and np.mean(history[-10:]) > 0.65


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operators": "crop,warp"}, "--operators: augmentation.operators must be one of crop, .*Received: warp"),
        ({"operators": "flip,crop"}, "--operators: .* must name crop first, or leave it out. Received: flip,crop"),
        ({"operators": "crop,crop"}, "--operators: .* must name crop first, or leave it out. Received: crop,crop"),
        ({"operators": "crop,sobel", "more_operators": "sobel"}, "each operator once, .* Received: crop,sobel,sobel"),
        ({"more_operators": "autoaugment_cifar10,autoaugment_imagenet"}, "at most one policy of AutoAugment. Received"),
        ({"more_operators": "flip"}, "--more_operators: augmentation.more_operators must be .*Received: flip"),
    ],
)
def test_operators_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)
