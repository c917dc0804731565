"""Linear evaluation by SGD against a loop over examples."""

import dataclasses
import math

import numpy as np
import pytest
from clusters import make_clusters
from scipy.special import softmax

from tf_simclr.evaluation import Features
from tf_simclr.evaluation.protocols.linear_sgd import LinearSGD
from tf_simclr.keras import keras


def small_clusters(num_examples, seed=1):
    made = make_clusters(num_examples, 3, 4, noise=0.5, seed=seed)
    return dataclasses.replace(made, representations=(made.representations - 5) / np.float32([0.01, 0.2, 5, 100]))


def test_the_weights_are_those_of_a_loop_over_examples():
    train = small_clusters(11)
    protocol = LinearSGD(seed=3, epochs=4, batch_size=4, learning_rate=6.4)
    features, labels = train.representations.astype(np.float64), train.labels
    weights, bias = np.random.default_rng([3, 0]).normal(0, 0.01, [4, 3]), np.zeros(3)
    velocities = [np.zeros([4, 3]), np.zeros(3)]
    for step in range(8):  # Two batches of 4 in an epoch; three examples are left over.
        order = np.random.default_rng([3, 1, step // 2]).permutation(11)
        gradients = [np.zeros([4, 3]), np.zeros(3)]
        for example in order[step % 2 * 4 : step % 2 * 4 + 4]:
            logits = [sum(features[example, f] * weights[f, c] for f in range(4)) + bias[c] for c in range(3)]
            for c in range(3):
                residual = math.exp(logits[c]) / sum(map(math.exp, logits)) - (labels[example] == c)
                gradients[0][:, c] += residual * features[example] / 4
                gradients[1][c] += residual / 4
        rate = 0.1 * (1 + math.cos(math.pi * step / 8)) / 2  # 6.4 * 4 / 256
        for place, variable in enumerate((weights, bias)):
            velocities[place] = 0.9 * velocities[place] - rate * gradients[place]
            variable += 0.9 * velocities[place] - rate * gradients[place]
    found = protocol.fit(train)
    np.testing.assert_allclose(found[0], weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[1], bias, rtol=1e-4, atol=1e-6)


def test_a_step_is_that_of_keras():
    train = small_clusters(8)
    weights, bias = LinearSGD(epochs=2).fit(train)  # One batch of 8.
    layer = keras.layers.Dense(3)
    layer.build([None, 4])
    layer.set_weights([np.random.default_rng([0, 0]).normal(0, 0.01, [4, 3]), np.zeros(3)])
    model = keras.Sequential([layer])
    optimizer = keras.optimizers.SGD(1.0, 0.9, nesterov=True)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    for rate in (0.1 * 8 / 256, 0.1 * 8 / 256 / 2):
        optimizer.learning_rate = rate
        model.train_on_batch(train.representations, train.labels)
    np.testing.assert_allclose(layer.get_weights()[0], weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.get_weights()[1], bias, rtol=1e-4, atol=1e-6)


def test_judges_with_the_references_settings():
    train, test = small_clusters(300), small_clusters(100, seed=2)
    judged = LinearSGD()(train, test.representations)
    assert np.mean(judged.probabilities.argmax(axis=1) == test.labels) > 0.95
    assert judged.settings == {
        "epochs": 90,
        "batch_size": 300,
        "peak_learning_rate": 0.1 * 300 / 256,
        "momentum": 0.9,
        "augmentation": "none",
        "seed": 0,
    }
    weights, bias = LinearSGD().fit(train)
    expected = softmax(test.representations.astype(float) @ weights + bias, axis=1)
    np.testing.assert_allclose(judged.probabilities, expected, atol=1e-5)


def test_says_what_it_cannot_judge():
    train = small_clusters(20)
    several = Features(train.representations, train.labels[:, None] == np.arange(3), 3)
    with pytest.raises(ValueError, match=r"one label for each image.*\[20, 3\]"):
        LinearSGD()(several, train.representations)
    with pytest.raises(ValueError, match="diverged"), np.errstate(all="ignore"):
        LinearSGD().fit(dataclasses.replace(train, representations=train.representations * np.float32(1e30)))
