"""The random numbers of the augmentation against TensorFlow's own Philox, and what they depend on."""

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.augment.draws import example_keys, uniform

LARGE = 2**35 + 3


@pytest.mark.parametrize("seed", [0, 7, LARGE, -1])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_rows_are_those_of_tensorflows_generator(seed, jit_compile):
    keys = np.array([[0, 0], [3, 5], [3, LARGE], [2**31, 1]])
    draws = tf.function(lambda keys: uniform(seed, keys, 7), jit_compile=jit_compile)(tf.constant(keys)).numpy()
    for row, (epoch, example) in zip(draws, keys, strict=True):
        bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[7],
            key=np.array([seed % 2**64], np.uint64),
            counter=np.array([epoch << 32, example], np.uint64),
            alg=1,
            dtype=tf.uint32,
        )
        np.testing.assert_array_equal(row, (bits.numpy() >> 9) / np.float32(2**23))


def test_rows_do_not_depend_on_their_neighbours():
    keys = example_keys(4, 10, 6)
    np.testing.assert_array_equal(keys, [[4, example] for example in range(10, 16)])
    whole = uniform(1, keys, 9)
    np.testing.assert_array_equal(uniform(1, keys[2:4], 9), whole[2:4])
    np.testing.assert_array_equal(uniform(1, keys, 5), whole[:, :5])


def test_they_are_uniform_and_not_correlated():
    draws = np.stack([uniform(0, example_keys(epoch, 0, 5000), 8) for epoch in range(2)]).reshape(2, -1)
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.histogram(draws, 100, (0, 1))[0]
    assert np.sum((counts - 800) ** 2 / 800) < 150  # 99 degrees of freedom; 0.1 % lies above 148.
    assert abs(np.corrcoef(draws)[0, 1]) < 0.02
    assert abs(np.corrcoef(draws[0, 1:], draws[0, :-1])[0, 1]) < 0.02
