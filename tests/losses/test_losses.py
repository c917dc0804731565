"""NT-Xent against a transcription of the paper, the reference's numbers and finite differences."""

import math

import numpy as np
import pytest
import tensorflow as tf
from oracles import contrast as slow_contrast

from tf_simclr.losses import NTXent, Pairs, blocked

NUM_IMAGES, WIDTH = 14, 6


def projections(num_views, num_images=NUM_IMAGES, width=WIDTH, dtype=tf.float64):
    return tf.cast(np.random.default_rng(num_images).normal(size=[num_views * num_images, width]), dtype)


def views_of(z, num_views):
    """[V n, D] -> [V, n, D]."""
    return np.reshape(z, [num_views, -1, z.shape[-1]])


def values(result):
    """Loss, accuracy and entropy."""
    loss, metrics = result
    assert tuple(metrics) == NTXent.metric_names == ("contrastive_top_1_accuracy", "contrastive_entropy")
    return [loss, *metrics.values()]


def whole_matrix(z, temperature):
    """Loss, accuracy and entropy of two views from the matrix of all similarities, as the formulas have them."""
    z = tf.math.l2_normalize(z, axis=-1)
    logits = tf.linalg.set_diag(tf.matmul(z, z, transpose_b=True) / temperature, tf.fill([len(z)], z.dtype.min))
    targets = np.roll(np.arange(len(z)), len(z) // 2)
    probabilities = tf.nn.softmax(logits)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    entropies = -tf.reduce_sum(tf.math.xlogy(probabilities, probabilities), axis=-1)
    return tf.reduce_mean(losses), np.mean(np.argmax(logits, axis=-1) == targets), tf.reduce_mean(entropies)


def with_gradient(compare, z, factor=7.0):
    """What a comparison returns, and the gradient of a multiple of its loss."""
    with tf.GradientTape() as tape:
        tape.watch(z)
        found = compare(z)
        objective = factor * found[0]
    return [np.asarray(value) for value in found], tape.gradient(objective, z)


@pytest.mark.parametrize("num_views", [2, 3, 5])
@pytest.mark.parametrize("num_images", [1, 2, 7])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equals_algorithm_1_of_the_paper(num_views, num_images, normalize, temperature):
    z = projections(num_views, num_images, width=5)
    found = values(NTXent(temperature, normalize)(z, Pairs(num_views)))
    expected = slow_contrast(views_of(z, num_views), temperature, normalize=normalize)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_equals_half_the_reference(golden_dir):
    golden = np.load(golden_dir / "nt_xent.npz")
    settings = sorted(name.removesuffix("/grad") for name in golden if name.endswith("/grad"))
    assert settings
    for setting in settings:
        case, temperature, norm = setting.split("/")
        loss = NTXent(float(temperature[1:]), normalize=norm == "norm1")
        (value, *_), gradient = with_gradient(
            lambda z, loss=loss: loss(z)[:1], tf.constant(golden[f"{case}/hidden"]), 2
        )
        np.testing.assert_allclose(2 * value, golden[f"{setting}/loss_sum_of_views"], rtol=2e-5, err_msg=setting)
        expected = golden[f"{setting}/grad"]
        np.testing.assert_allclose(gradient, expected, atol=2e-5 * np.abs(expected).max(), err_msg=setting)


def test_nt_xent_collapses_to_the_log_of_the_candidates():
    assert NTXent().collapse_value(2, 6) == math.log(2 * 6 - 1)
    assert NTXent().collapse_value(3, 6) == math.log(3 * 6 - 1)


@pytest.mark.parametrize("num_views", [2, 4])
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_projections_are_compared_in_float32(dtype, num_views):
    z = tf.cast(tf.random.stateless_normal([64, 16], seed=[0, 1]), dtype)
    found = values(NTXent(0.01)(z, Pairs(num_views)))
    assert {value.dtype for value in found} == {tf.float32}
    np.testing.assert_allclose(found, values(NTXent(0.01)(tf.cast(z, tf.float32), Pairs(num_views))), rtol=1e-6)


def test_rejects_a_temperature_that_is_not_positive():
    with pytest.raises(ValueError, match="temperature must be positive. Received: 0"):
        NTXent(0.0)


def test_rejects_a_single_view():
    with pytest.raises(ValueError, match="needs at least two of every image: .* Received: 1"):
        Pairs(1)


@pytest.mark.parametrize("num_large", [1, 4])
def test_rejects_other_numbers_of_large_views(num_large):
    with pytest.raises(ValueError, match=f"num_large must be from 2 to 3, .* Received: {num_large}"):
        Pairs(3, num_large=num_large)


@pytest.mark.parametrize(
    ("block", "jit_compile", "dtype", "tolerance"),
    [
        *((block, False, tf.float64, 1e-12) for block in (1, 5, 100)),
        (5, True, tf.float64, 1e-12),
        (5, False, tf.float32, 1e-6),
    ],
)
def test_blocks_add_up_to_the_whole_matrix(block, jit_compile, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(blocked, "ANCHORS_PER_BLOCK", block)
    z = tf.cast(np.random.default_rng(block).normal(size=[28, 6]), dtype)
    compare = tf.function(lambda z: values(NTXent(0.2)(z)), jit_compile=jit_compile)
    found, gradient = with_gradient(compare, z)
    expected, expected_gradient = with_gradient(lambda z: whole_matrix(z, 0.2), z)
    np.testing.assert_allclose(found, expected, rtol=tolerance)
    atol = tolerance * np.abs(expected_gradient).max()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=atol)


@pytest.mark.parametrize(("num_views", "num_replicas"), [(2, 3), (3, 2), (4, 4)])
def test_blocks_of_anchors_against_gathered_candidates(num_views, num_replicas, monkeypatch):
    """Every replica gathers all images; together they compute what one does."""
    monkeypatch.setattr(blocked, "ANCHORS_PER_BLOCK", 3)
    num_local = 12 // num_replicas
    z = projections(num_views, 12)

    def on_replicas(z):
        images = tf.stack(tf.split(z, num_views), axis=1)
        results = []
        for index in range(num_replicas):
            local = tf.unstack(images[num_local * index : num_local * (index + 1)], axis=1)
            gather = lambda _: tf.math.l2_normalize(images, axis=-1)  # noqa: E731
            pairs = Pairs(num_views, gather, tf.constant(index))
            results.append(values(NTXent(0.2)(tf.concat(local, axis=0), pairs)))
        return [tf.reduce_mean(value) for value in zip(*results, strict=True)]

    found, gradient = with_gradient(on_replicas, z)
    alone, expected_gradient = with_gradient(lambda z: values(NTXent(0.2)(z, Pairs(num_views))), z)
    np.testing.assert_allclose(found, slow_contrast(views_of(z, num_views), 0.2), rtol=1e-12)
    np.testing.assert_allclose(found, alone, rtol=1e-12)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-12)


def test_pairs_know_the_rows_of_every_view_of_an_image():
    """Images 2 and 3 of 6 on the second of three replicas, in three views: row v * 6 + image."""
    (part,) = Pairs(3, None, 1).parts(tf.zeros([6, 1]), tf.zeros([18, 1]))
    assert part.itself.numpy().tolist() == [2, 3, 8, 9, 14, 15]
    assert part.images.numpy().tolist() == [2, 3] * 3
    positives = part.positives.numpy().tolist()
    assert [sorted(row) for row in positives] == [[8, 14], [9, 15], [2, 14], [3, 15], [2, 8], [3, 9]]
    assert part.itself.dtype == part.positives.dtype == tf.int32


def test_small_views_look_for_the_large_ones():
    """The same images in two large views, rows v * 6 + image, and a small one, which is no candidate."""
    pairs = Pairs(3, None, 1, num_large=2)
    projections = tf.range(6.0)[:, tf.newaxis]
    assert pairs.candidates(projections).numpy().tolist() == [[0], [1], [2], [3]]
    large, small = pairs.parts(projections, tf.zeros([12, 1]))
    assert (large.share, small.share) == (2 / 3, 1 / 3)
    assert large.anchors.numpy().tolist() == [[0], [1], [2], [3]] and small.anchors.numpy().tolist() == [[4], [5]]
    assert large.itself.numpy().tolist() == [2, 3, 8, 9] and small.itself.numpy().tolist() == [-1, -1]
    assert large.positives.numpy().tolist() == [[8], [9], [2], [3]]
    assert [sorted(row) for row in small.positives.numpy().tolist()] == [[2, 8], [3, 9]]


def test_metrics_of_perfect_and_of_equal_projections():
    _, accuracy, entropy = values(NTXent(0.05)(tf.tile(tf.eye(4), [2, 1])))
    assert accuracy == 1.0
    np.testing.assert_allclose(entropy, 0.0, atol=1e-5)
    np.testing.assert_allclose(values(NTXent(0.05)(tf.ones([8, 3])))[2], math.log(7), rtol=1e-5)


def test_accuracy_counts_negatives_of_the_same_view():
    # The anchor's nearest candidate is another image's *same* view, which cross-view accuracy would not see.
    z = tf.constant([[1.0, 0.0], [0.99, 0.1], [0.6, 0.8], [0.6, -0.8]])
    cosines = z / np.linalg.norm(z, axis=1, keepdims=True)
    similarity = cosines @ tf.transpose(cosines) - 9 * tf.eye(4)
    expected = np.mean(np.argmax(similarity, axis=1) == [2, 3, 0, 1])
    assert values(NTXent(1.0)(z))[1] == expected < 1
