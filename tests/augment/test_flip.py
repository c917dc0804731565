"""Mirror images against NumPy."""

import numpy as np

from tf_simclr.augment import RandomFlip


def test_only_the_chosen_images_are_mirrored():
    images = np.random.default_rng(0).random((4, 3, 5, 7), np.float32)
    result = RandomFlip(0.3)(images, np.float32([[0.29], [0.31], [0.0], [0.99]]))
    np.testing.assert_array_equal(result[::2], images[::2, :, :, ::-1])
    np.testing.assert_array_equal(result[1::2], images[1::2])
