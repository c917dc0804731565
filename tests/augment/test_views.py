"""The views: the whole chain against tf.image, where its random numbers come from, and branches that differ."""

import augment_oracle
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.augment import Augmentation, RandomCrop, crop, crop_and_flip, example_keys, simclr_chain
from tf_simclr.augment.draws import uniform

OFF = {
    "flip_probability": 0.0,
    "jitter_probability": 0.0,
    "grayscale_probability": 0.0,
    "blur_probability": 0.0,
}


def make_images(count, height=24, width=24):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def make_augmentation(image_size, seed=0, **settings):
    return Augmentation(image_size, branches=(simclr_chain(**settings),) * 2, seed=seed)


def augment(augmentation, images, epoch=0):
    return augmentation(images, example_keys(epoch, 0, len(images)))


@pytest.mark.parametrize("sampler", crop.SAMPLERS)
def test_chain_equals_tf_image(sampler):
    images = make_images(12, 36, 50)
    augmentation = make_augmentation(30, crop_sampler=sampler, seed=3)
    keys = example_keys(5, 0, 12)
    views = augmentation(images, keys)
    assert views.shape == (24, 30, 30, 3)
    assert views.dtype == tf.float32
    counts = {operator.stream: operator.num_draws for operator in simclr_chain()}
    names = ("crop", "flip", "jitter", "grayscale", "blur")
    draws = dict(zip(names, map(np.asarray, uniform(3, keys, [0, 1], counts).values()), strict=True))
    boxes = RandomCrop(sampler).boxes(draws["crop"], 36, 50).numpy()
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
            if set(order[:2]) == {2, 3}:  # The one documented difference, see ColorJitter.
                overshoot = max(float(tf.reduce_max(image)) - 1, -float(tf.reduce_min(image)), 0.0)
            image = augment_oracle.jitter(image, augment_oracle.factors_of(factor_draws, 1.0), order)
        if draws["grayscale"][index] < 0.2:
            image = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
        image = tf.clip_by_value(image, 0.0, 1.0)
        blurs, sigma_draw = draws["blur"][index]
        if blurs < 0.5:
            image = augment_oracle.blur(image.numpy(), 0.1 + 1.9 * sigma_draw)
        np.testing.assert_allclose(views[index], image, atol=1e-5 + 2 * overshoot)


@pytest.mark.parametrize("rank", [4, pytest.param(5, marks=pytest.mark.slow)])
def test_same_pixels_with_xla_and_with_an_unknown_batch_size(rank):
    images = make_images(8) if rank == 4 else make_images(16).reshape(8, 2, 24, 24, 3)
    augmentation = Augmentation(image_size=24, seed=1)
    keys = example_keys(2, 0, 8)
    expected = augmentation(images, keys)
    np.testing.assert_allclose(tf.function(augmentation, jit_compile=True)(images, keys), expected, atol=1e-5)
    signature = (tf.TensorSpec((None, *images.shape[1:]), tf.uint8), tf.TensorSpec((None, 2), tf.int64))
    np.testing.assert_allclose(tf.function(augmentation, signature)(images, keys), expected, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_any_part_of_a_batch_has_the_pixels_that_it_has_in_the_whole(jit_compile):
    images, keys = make_images(8), example_keys(4, 0, 8)
    augmentation = Augmentation(image_size=16, seed=1)
    whole = tf.reshape(augmentation(images, keys), (2, 8, 16, 16, 3)).numpy()
    for rows in (slice(0, 4), slice(4, 8), slice(7, None, -3)):
        part = tf.function(augmentation, jit_compile=jit_compile)(images[rows], keys.numpy()[rows])
        np.testing.assert_allclose(tf.reshape(part, (2, -1, 16, 16, 3)), whole[:, rows], atol=1e-5)


def test_crops_are_those_of_the_boxes():
    images, keys = make_images(4), example_keys(1, 0, 4)
    augmentation = make_augmentation(24, seed=2, **OFF)
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
        views = augment(make_augmentation(32, **settings), images)
        assert tf.reduce_min(views) == 0.0
        assert 0.9 < tf.reduce_max(views) <= 1.0


def test_identity_when_everything_is_off():
    images = make_images(4)
    whole = make_augmentation(24, crop_area=(1.0, 1.0), crop_aspect_ratio=(1.0, 1.0), **OFF)
    np.testing.assert_allclose(augment(whole, images), np.concatenate((images, images)) / 255.0, atol=1e-6)
    views = make_images(8).reshape(4, 2, 24, 24, 3)
    expected = np.concatenate((views[:, 0], views[:, 1])) / 255.0
    np.testing.assert_allclose(augment(whole, views), expected, atol=1e-6)
    mirrored = augment(make_augmentation(24, **OFF | {"flip_probability": 1.0}), views)
    np.testing.assert_allclose(mirrored, expected[:, :, ::-1], atol=1e-6)


def test_shares_are_the_probabilities():
    images = np.broadcast_to(np.linspace(0.2, 0.6, 30, dtype=np.float32).reshape((10, 3)), (1000, 1, 10, 3))
    images = np.broadcast_to(images[:, np.newaxis], (1000, 2, 10, 10, 3))
    originals = np.concatenate((images[:, 0], images[:, 1]))

    def share(changed):
        return np.mean(np.any(changed, axis=(1, 2, 3)))

    def views(**settings):
        return augment(make_augmentation(10, **OFF | settings), images).numpy()

    assert share(np.abs(views(flip_probability=0.3) - originals) > 1e-3) == pytest.approx(0.3, abs=0.04)
    assert share(np.abs(views(jitter_probability=0.7) - originals) > 1e-3) == pytest.approx(0.7, abs=0.04)
    gray = views(grayscale_probability=0.4)
    assert share(np.ptp(gray, axis=-1, keepdims=True) > 1e-3) == pytest.approx(0.6, abs=0.04)


MIXED = (
    simclr_chain(crop_area=(0.2, 0.9)),
    simclr_chain(crop_sampler="uniform_area", **OFF),
    simclr_chain(crop_area=(0.2, 0.9)),
)


@pytest.mark.parametrize(
    ("is_cropped", "jit_compile"),
    [(False, False), pytest.param(False, True, marks=pytest.mark.slow), (True, False)],
)
def test_each_view_is_what_its_branch_makes_whatever_the_others(is_cropped, jit_compile):
    images = make_images(12).reshape(4, 3, 24, 24, 3) if is_cropped else make_images(4)
    keys = example_keys(3, 7, 4)
    views = tf.function(Augmentation(24, branches=MIXED, seed=2), jit_compile=jit_compile)(images, keys)
    views = np.split(views, 3)
    for number, chain in enumerate(MIXED):
        alike = Augmentation(24, branches=(chain,) * (number + 1), seed=2)
        expected = alike(images[:, : number + 1] if is_cropped else images, keys)
        np.testing.assert_allclose(views[number], expected[-4:], atol=1e-5)
    assert np.abs(views[0] - views[2]).max(axis=(1, 2, 3)).min() > 0.01


def test_boxes_are_those_of_each_branchs_crop():
    keys = example_keys(3, 7, 5)
    augmentation = Augmentation(24, branches=MIXED, seed=2)
    heights, widths = 40 + np.arange(15), 60 + np.arange(15)[::-1]
    boxes = np.split(augmentation.crop_boxes(keys, 40, 60), 3)
    boxes_by_image = np.split(augmentation.crop_boxes(keys, heights, widths), 3)
    for number, chain in enumerate(MIXED):
        draws = uniform(2, keys, [number], {0: RandomCrop.num_draws})[0]
        np.testing.assert_array_equal(boxes[number], chain[0].boxes(draws, 40, 60))
        rows = slice(5 * number, 5 * number + 5)
        np.testing.assert_array_equal(boxes_by_image[number], chain[0].boxes(draws, heights[rows], widths[rows]))


SHARED = RandomCrop(area=(0.3, 0.6), stream=10)


def test_a_shared_crop_is_the_same_for_all_views_of_an_image():
    images, keys = make_images(4), example_keys(3, 7, 4)
    branches = ((crop.WHOLE_IMAGE,), (crop.WHOLE_IMAGE,), simclr_chain(**OFF))
    augmentation = Augmentation(24, branches=branches, seed=2, shared_crop=SHARED)
    boxes = np.split(augmentation.crop_boxes(keys, 24, 24), 3)
    expected = SHARED.boxes(uniform(2, keys, [0], {10: RandomCrop.num_draws})[10], 24, 24).numpy()
    np.testing.assert_array_equal(boxes[0], expected)
    np.testing.assert_array_equal(boxes[1], expected)
    assert len({tuple(box) for box in expected}) == 4
    inner = RandomCrop().boxes(uniform(2, keys, [2], {0: RandomCrop.num_draws})[0], expected[:, 2], expected[:, 3])
    np.testing.assert_array_equal(boxes[2][:, :2], expected[:, :2] + inner.numpy()[:, :2])
    np.testing.assert_array_equal(boxes[2][:, 2:], inner[:, 2:])
    # Images of other sizes get the same boxes, one by one, and the views are those of the boxes.
    one_by_one = np.split(augmentation.crop_boxes(keys, np.full(12, 24), np.full(12, 24)), 3)
    np.testing.assert_array_equal(one_by_one, boxes)
    views = np.split(tf.function(augmentation)(images, keys), 3)
    for view, box in zip(views, boxes, strict=True):
        crops = crop.crop_and_resize(images / np.float32(255), box, None, 24)
        np.testing.assert_allclose(view, np.clip(np.transpose(crops, (0, 2, 3, 1)), 0, 1), atol=1e-5)


def test_crop_and_flip_keeps_those_of_the_first_branch():
    images = make_images(4)
    one = crop_and_flip(Augmentation(24, branches=MIXED, seed=2))
    assert one.num_views == 1
    expected = make_augmentation(24, seed=2, **OFF | {"crop_area": (0.2, 0.9), "flip_probability": 0.5})
    np.testing.assert_array_equal(augment(one, images), augment(expected, images)[:4])


def test_lists_become_tuples():
    chain = list(simclr_chain(crop_area=[0.2, 1.0], crop_aspect_ratio=[1.0, 2.0]))
    augmentation = Augmentation(24, branches=[chain, chain])
    expected = make_augmentation(24, crop_area=(0.2, 1.0), crop_aspect_ratio=(1.0, 2.0))
    assert augmentation == expected and hash(augmentation) == hash(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "`image_size` must be at least 1 pixel. Received: 0"),
        ({"branches": ()}, "`branches` must have at least one chain of operators. Received: ()"),
        ({"shared_crop": RandomCrop()}, "different streams, .* stream=0 for RandomCrop and RandomCrop"),
        ({"branches": (simclr_chain(),) * 257}, "at most 256 views, .* Received: view 256"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**{"image_size": 32} | settings)


@pytest.mark.parametrize("shape", [(8, 8, 3), (2, 8, 8, 1), (2, 2, 8, 9, 3), (2, 3, 16, 16, 3)])
def test_invalid_shapes(shape):
    with pytest.raises(ValueError, match="`images` must have the shape .* Received"):
        augment(Augmentation(image_size=16), np.zeros(shape, np.uint8))
