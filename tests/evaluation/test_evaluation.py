"""Feature extraction, kNN and linear evaluation."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from tf_simclr.evaluation import evaluate_features, extract, fit_linear, knn_scores, top_k_accuracy
from tf_simclr.keras import keras


def make_encoder() -> keras.Model:
    """A small encoder whose batch norm statistics are not the initial ones."""
    images = keras.Input([8, 8, 3])
    hidden = keras.layers.Conv2D(6, 3)(images)
    hidden = keras.layers.BatchNormalization()(hidden)
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(hidden))
    encoder = keras.Model(images, outputs)
    encoder(tf.random.stateless_normal([32, 8, 8, 3], seed=[1, 2]), training=True)
    return encoder


def make_images(num_examples: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, num_examples)
    images = generator.uniform(size=[num_examples, 8, 8, 3]) * 0.5 + 0.25 * labels[:, None, None, None]
    return images.astype(np.float32), labels


def make_clusters(num_examples: int, num_classes: int, dim: int, noise: float, seed: int):
    """Points around fixed class centres on scales and offsets that differ between the features."""
    centers = np.random.default_rng(99).normal(size=[num_classes, dim])
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_examples)
    features = centers[labels] + noise * generator.normal(size=[num_examples, dim])
    return (features * 10.0 ** np.linspace(-2, 2, dim) + 5).astype(np.float32), labels


def test_evaluation_leaves_the_encoder_byte_identical():
    encoder = make_encoder()
    before = [variable.numpy().tobytes() for variable in encoder.variables]
    assert len(encoder.non_trainable_variables) == 2  # The moving statistics are among them.
    images, labels = make_images(100)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(32)
    features, extracted_labels = extract(encoder, dataset)
    result = evaluate_features(features[:60], labels[:60], features[60:], labels[60:], num_classes=3)
    assert [variable.numpy().tobytes() for variable in encoder.variables] == before
    np.testing.assert_array_equal(extracted_labels, labels)
    assert features.dtype == np.float32 and extracted_labels.dtype == np.int64
    np.testing.assert_allclose(features, encoder(images, training=False), rtol=1e-5, atol=1e-6)
    assert set(result) == {
        "eval/knn_top_1_accuracy",
        "eval/knn_k",
        "eval/linear_top_1_accuracy",
        "eval/linear_regularization_c",
    }
    assert result["eval/knn_k"] == 60


def test_extract_without_labels_and_in_half_precision():
    images, _ = make_images(10)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        encoder = make_encoder()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    features, labels = extract(encoder, tf.data.Dataset.from_tensor_slices(images).batch(4))
    assert labels is None
    assert features.shape == (10, 6) and features.dtype == np.float32
    assert np.abs(features).max() > 0


def test_extract_refuses_what_cannot_be_judged():
    images, _ = make_images(4)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(2)
    with pytest.raises(ValueError, match="at least one image"):
        extract(make_encoder(), dataset.take(0))
    broken = make_encoder()
    broken.layers[1].bias.assign(tf.fill([6], np.nan))
    with pytest.raises(ValueError, match="finite"):
        extract(broken, dataset)


@pytest.mark.parametrize("k", [1, 7, 1000])
def test_knn_agrees_with_a_loop_over_examples(k, monkeypatch):
    monkeypatch.setattr("tf_simclr.evaluation.knn._BLOCK_ELEMENTS", 256)  # Several blocks of unequal length.
    train, train_labels = make_clusters(50, 4, 6, noise=1.0, seed=1)
    test, _ = make_clusters(23, 4, 6, noise=1.0, seed=2)
    expected = np.zeros([23, 4])
    for row, query in enumerate(test.astype(np.float64)):
        similarities = [
            query @ other / np.linalg.norm(query) / np.linalg.norm(other) for other in train.astype(np.float64)
        ]
        for neighbor in np.argsort(similarities)[::-1][:k]:
            expected[row, train_labels[neighbor]] += np.exp(similarities[neighbor] / 0.1)
    scores = knn_scores(train, train_labels, test, num_classes=4, k=k)
    np.testing.assert_allclose(
        scores / scores.sum(1, keepdims=True), expected / expected.sum(1, keepdims=True), atol=1e-4
    )


def test_knn_refuses_what_makes_no_sense():
    features, labels = make_clusters(5, 2, 3, noise=1.0, seed=1)
    with pytest.raises(ValueError, match="k=0"):
        knn_scores(features, labels, features, num_classes=2, k=0)
    with pytest.raises(ValueError, match="temperature=0"):
        knn_scores(features, labels, features, num_classes=2, temperature=0)


def test_top_k_accuracy_does_not_reward_ties():
    scores = np.array([[3, 2, 1, 0], [3, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    labels = np.array([0, 1, 0, 3])
    assert top_k_accuracy(scores, labels) == 0.5
    assert top_k_accuracy(scores, labels, 2) == 0.75
    assert top_k_accuracy(scores, labels, 4) == 1.0


@pytest.mark.parametrize("num_classes", [2, 6])
def test_linear_evaluation_separates_what_is_separable(num_classes):
    train, train_labels = make_clusters(600, num_classes, 12, noise=0.1, seed=1)
    test, test_labels = make_clusters(200, num_classes, 12, noise=0.1, seed=2)
    result = evaluate_features(train, train_labels, test, test_labels, num_classes=num_classes)
    assert result["eval/linear_top_1_accuracy"] == 1.0
    assert result["eval/knn_k"] == 200
    assert ("eval/linear_top_5_accuracy" in result) == (num_classes > 5)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_probe_is_scikit_learns_regression_on_standardised_features(num_classes):
    features, labels = make_clusters(400, num_classes, 5, noise=2.0, seed=1)
    probe = fit_linear(features, labels, num_classes=num_classes)
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    oracle = LogisticRegression(C=probe.regularization_c, tol=1e-8, max_iter=1000)
    oracle.fit((features - mean) / deviation, labels)
    scores = probe.scores(features)
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, oracle.predict_proba((features - mean) / deviation), atol=5e-3)


def test_regularisation_is_chosen_on_examples_that_were_not_fitted():
    # More features than examples: the weakest penalty fits the labels perfectly and generalises worse.
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    features = generator.normal(size=[300, 600]).astype(np.float32)
    features[:, :60] += 0.25 * (2 * labels[:, None] - 1)
    weakest = LogisticRegression(C=1.0, max_iter=1000).fit(features, labels)
    assert weakest.score(features, labels) == 1.0  # Chosen on what was fitted, C would be 1.
    assert fit_linear(features, labels, num_classes=2, seed=0).regularization_c < 1.0


def test_test_examples_do_not_influence_the_choice():
    train, train_labels = make_clusters(300, 3, 8, noise=3.0, seed=1)
    chosen = {
        evaluate_features(train, train_labels, test, labels, num_classes=3)["eval/linear_regularization_c"]
        for test, labels in (make_clusters(50, 3, 8, noise=noise, seed=2) for noise in (0.01, 3.0, 100.0))
    }
    assert len(chosen) == 1


def test_a_class_without_examples_is_never_predicted():
    features, labels = make_clusters(60, 2, 4, noise=0.5, seed=1)
    labels = np.where(labels == 0, 1, 4)  # Classes 0, 2 and 3 of five have no example.
    probe = fit_linear(features, labels, num_classes=5)
    scores = probe.scores(features)
    assert scores.shape == (60, 5)
    assert set(np.argmax(scores, axis=1)) == {1, 4}
    assert top_k_accuracy(scores, labels, 2) == 1.0


def test_labels_that_allow_no_evaluation():
    features, labels = make_clusters(20, 3, 4, noise=1.0, seed=1)
    with pytest.raises(ValueError, match="two classes"):
        fit_linear(features, np.zeros(20, np.int64), num_classes=3)
    with pytest.raises(ValueError, match="two examples"):
        fit_linear(features, np.arange(20), num_classes=20)
    with pytest.raises(ValueError, match=r"\[0, 2\)"):
        evaluate_features(features, labels, features, labels, num_classes=2)
