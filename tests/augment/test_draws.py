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
    views, counts = [0, 2, 255], {0: 7, 65535: 1, 9: 4}
    draws = tf.function(lambda keys: uniform(seed, keys, views, counts), jit_compile=jit_compile)(tf.constant(keys))
    assert draws.keys() == counts.keys()
    for stream, count in counts.items():
        rows = draws[stream].numpy()
        assert rows.shape == (3 * 4, count)
        for row, (view, (epoch, example)) in zip(rows, ((view, key) for view in views for key in keys), strict=True):
            blocks = [
                tf.raw_ops.StatelessRandomUniformFullIntV2(
                    shape=[4],
                    key=np.array([seed % 2**64], np.uint64),
                    counter=np.array([block + 2**8 * view + 2**16 * stream + (int(epoch) << 32), example], np.uint64),
                    alg=1,
                    dtype=tf.uint32,
                )
                for block in range((count + 3) // 4)
            ]
            np.testing.assert_array_equal(row, (np.concatenate(blocks)[:count] >> 9) / np.float32(2**23))


def test_rows_do_not_depend_on_their_neighbours():
    keys = example_keys(4, 10, 6)
    np.testing.assert_array_equal(keys, [[4, example] for example in range(10, 16)])
    whole = uniform(1, keys, [0, 1, 2], {5: 9, 6: 2})
    np.testing.assert_array_equal(uniform(1, keys[2:4], [0], {5: 9})[5], whole[5][2:4])
    np.testing.assert_array_equal(uniform(1, keys, [2, 0], {6: 2})[6], tf.concat((whole[6][12:], whole[6][:6]), 0))
    np.testing.assert_array_equal(uniform(1, keys, [0, 1, 2], {3: 1, 5: 5})[5], whole[5][:, :5])


def test_they_are_uniform_and_not_correlated():
    draws = [uniform(0, example_keys(epoch, 0, 5000), [0, 1], {0: 8, 1: 8}) for epoch in range(2)]
    draws = np.stack([np.split(numbers[stream], 2) for numbers in draws for stream in (0, 1)]).reshape(8, -1)
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.histogram(draws[::4], 100, (0, 1))[0]
    assert np.sum((counts - 800) ** 2 / 800) < 150  # 99 degrees of freedom; 0.1 % lies above 148.
    # One row for each epoch, stream and view.
    assert np.abs(np.corrcoef(draws) - np.eye(8)).max() < 0.025
    assert abs(np.corrcoef(draws[0, 1:], draws[0, :-1])[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("views", "counts", "message"),
    [
        ([256], {0: 1}, "at most 256 views, numbered from 0. Received: view 256"),
        ([-1], {0: 1}, "at most 256 views, .* Received: view -1"),
        ([0], {65536: 1}, "`stream` must be between 0 and 65535. Received: 65536"),
        ([0], {-1: 1}, "`stream` must be between 0 and 65535. Received: -1"),
        ([0], {3: 1025}, "between 1 and 1024 numbers for each image. Received: 1025 in stream 3"),
        ([0], {3: 0}, "between 1 and 1024 numbers .* Received: 0 in stream 3"),
    ],
)
def test_what_the_counter_has_no_room_for(views, counts, message):
    with pytest.raises(ValueError, match=message):
        uniform(0, example_keys(0, 0, 2), views, counts)
