"""Crop boxes against TensorFlow's sampler, crops against tf.image.resize."""

import numpy as np
import pytest
import tensorflow as tf
from augment_oracle import kolmogorov_smirnov

from tf_simclr.augment import RandomCrop, crop, example_keys
from tf_simclr.augment.draws import uniform


def make_draws(count):
    return uniform(1, example_keys(2, 0, count), [0], {0: RandomCrop.num_draws})[0]


def sample(count, height, width, **settings):
    return RandomCrop(**settings).boxes(make_draws(count), height, width).numpy()


def describe(boxes):
    y, x, height, width = np.asarray(boxes, np.float64).T
    area, aspect = height * width, width / height
    return {"y": y, "x": x, "height": height, "width": width, "area": area, "aspect": aspect}


def assert_same_distribution(boxes, expected, threshold):
    boxes, expected = describe(boxes), describe(expected)
    for name, values in boxes.items():
        assert kolmogorov_smirnov(values, expected[name]) < threshold, name


@pytest.mark.parametrize(("height", "width"), [(32, 32), (224, 300)])
def test_default_boxes_are_distributed_like_the_references(golden_dir, height, width):
    expected = np.load(golden_dir / "crop_boxes.npz")[f"{height}x{width}/boxes_yxhw"]
    # At 20,000 draws each, equal distributions are further apart than this once in 10,000 times.
    assert_same_distribution(sample(len(expected), height, width), expected, 0.022)


def test_other_settings_are_distributed_like_tensorflows_sampler():
    count, height, width, area, aspect = 2500, 40, 61, (0.3, 0.7), (0.5, 2.0)

    def draw(index):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            (height, width, 3),
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed=tf.stack((7, index)),
            min_object_covered=0.1,
            aspect_ratio_range=aspect,
            area_range=area,
        )
        return tf.concat((begin[:2], size[:2]), 0)

    expected = tf.map_fn(tf.function(draw), tf.range(count))
    assert_same_distribution(sample(count, height, width, area=area, aspect_ratio=aspect), expected, 0.06)


def test_uniform_area_is_uniform():
    size, area, aspect = 300, (0.05, 0.3), (0.5, 2.0)
    boxes = sample(20_000, size, size, sampler="uniform_area", area=area, aspect_ratio=aspect)
    found = describe(boxes)
    uniform = np.linspace(0, 1, 20_000)
    assert kolmogorov_smirnov(found["area"] / size**2, area[0] + (area[1] - area[0]) * uniform) < 0.02
    assert kolmogorov_smirnov(np.log2(found["aspect"]), -1 + 2 * uniform) < 0.02
    assert np.any(found["y"] == 0) and np.any(found["y"] + found["height"] == size)
    relative = (found["x"] + 0.5) / (size - found["width"] + 1)
    assert kolmogorov_smirnov(relative, uniform) < 0.02


@pytest.mark.parametrize("sampler", crop.SAMPLERS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 400), (33, 32)])
def test_boxes_lie_inside_the_image(sampler, height, width):
    y, x, box_height, box_width = sample(500, height, width, sampler=sampler).T
    assert min(y.min(), x.min()) >= 0
    assert min(box_height.min(), box_width.min()) >= 1
    assert (y + box_height).max() <= height
    assert (x + box_width).max() <= width


@pytest.mark.parametrize("sampler", crop.SAMPLERS)
def test_impossible_crops_fall_back_to_the_whole_image(sampler):
    boxes = sample(10, 20, 30, sampler=sampler, area=(0.9, 1.0), aspect_ratio=(0.4, 0.5))
    np.testing.assert_array_equal(boxes, np.tile((0, 0, 20, 30), (10, 1)))


def test_the_whole_image_is_a_crop():
    for height, width in ((1, 1), (32, 32), (100, 101), (101, 100), (5, 400), (5001, 5001)):
        boxes = crop.WHOLE_IMAGE.boxes(make_draws(10), height, width)
        np.testing.assert_array_equal(boxes, np.tile((0, 0, height, width), (10, 1)))


def test_boxes_follow_from_each_image_size():
    draws, boxes_of = make_draws(3), RandomCrop().boxes
    heights, widths = np.array([64, 500, 64]), np.array([64, 375, 30])
    boxes = boxes_of(draws, heights, widths)
    np.testing.assert_array_equal(tf.function(boxes_of, jit_compile=True)(draws, heights, widths), boxes)
    for index in range(3):
        alone = boxes_of(draws[index : index + 1], heights[index], widths[index])
        np.testing.assert_array_equal(alone[0], boxes[index])


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (48, 64, 20), (17, 90, 96)])
def test_crop_and_resize_equals_tf_image(height, width, size):
    boxes = [(0, 0, height, width), (0, 0, 1, 1), (3, 4, 10, 7), (5, 0, 12, width)]
    boxes += [(height - 2, width - 5, 2, 5)]
    images = np.random.default_rng(0).random((len(boxes), height, width, 3), np.float32)
    flip = np.array([False, True, True, False, True])
    actual = crop.crop_and_resize(tf.constant(images), tf.constant(boxes), flip, size)
    actual = tf.transpose(actual, (0, 2, 3, 1))
    for index, (y, x, box_height, box_width) in enumerate(boxes):
        cut = images[index, y : y + box_height, x : x + box_width]
        expected = tf.image.resize(cut, (size, size), "bicubic").numpy()
        expected = expected[:, ::-1] if flip[index] else expected
        np.testing.assert_allclose(actual[index], expected, atol=1e-5)


def test_crop_and_resize_equals_the_reference(golden_dir):
    golden = np.load(golden_dir / "image_ops.npz")
    for image in ("img0", "img1", "img2"):
        boxes = np.stack([golden[f"{image}/crop{index}_box"] for index in range(3)])
        expected = np.stack([golden[f"{image}/crop{index}_resize32"] for index in range(3)])
        actual = crop.crop_and_resize(tf.stack([golden[image]] * 3), boxes, None, 32)
        np.testing.assert_allclose(tf.transpose(actual, (0, 2, 3, 1)), expected, atol=1e-5)
