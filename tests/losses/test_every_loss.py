"""Every loss against loops over its formula, finite differences, the paper's table of gradients, and one replica."""

import dataclasses
import functools
import math

import numpy as np
import oracles
import pytest
import tensorflow as tf
from replicas import mirrored

from tf_simclr import distribute
from tf_simclr.losses import DCL, DCLW, LOSSES, MarginTriplet, NTLogistic, NTXent, Pairs, SupCon, blocked

NUM_IMAGES, WIDTH = 7, 5
SOME_KNOWN = np.array([0, -1, 1, 0, -1, 1, 0])

# Every loss with its oracle.
CASES = {
    "nt_xent": (NTXent(0.2), functools.partial(oracles.contrast, temperature=0.2)),
    "dcl": (DCL(0.2), functools.partial(oracles.contrast, temperature=0.2, exclude_positives=True)),
    "dclw": (DCLW(0.2), functools.partial(oracles.contrast, temperature=0.2, exclude_positives=True, sigma=0.5)),
    "nt_logistic": (NTLogistic(0.3), functools.partial(oracles.logistic, temperature=0.3)),
    "nt_logistic_semi_hard": (
        NTLogistic(0.3, semi_hard=True),
        functools.partial(oracles.logistic, temperature=0.3, semi_hard=True),
    ),
    "margin_triplet": (MarginTriplet(0.4), functools.partial(oracles.triplet, margin=0.4)),
    "margin_triplet_semi_hard": (
        MarginTriplet(0.4, semi_hard=True),
        functools.partial(oracles.triplet, margin=0.4, semi_hard=True),
    ),
    "supcon": (SupCon(0.2), functools.partial(oracles.contrast, temperature=0.2, labels=SOME_KNOWN)),
}
# Views, and what else `Pairs` says of them.
SETTINGS = {
    "two views": (2, {}),
    "three views": (3, {}),
    "small views": (4, {"num_large": 2}),
    "memory": (2, {"memory": np.random.default_rng(9).normal(size=[6, WIDTH])}),
    "memory and a small view": (4, {"num_large": 3, "memory": np.random.default_rng(9).normal(size=[6, WIDTH])}),
}
TABLE = [(name, setting) for name in CASES for setting in SETTINGS if name != "supcon" or "memory" not in setting]


def projections(num_views, num_images=NUM_IMAGES, seed=0, dtype=tf.float64):
    return tf.cast(np.random.default_rng(seed).normal(size=[num_views * num_images, WIDTH]), dtype)


def pairs_of(setting, loss, **more):
    num_views, which = SETTINGS[setting]
    labels = tf.constant(SOME_KNOWN) if getattr(loss, "uses_labels", False) else None
    memory = which.get("memory")
    memory = None if memory is None else tf.constant(memory)
    return Pairs(num_views, num_large=which.get("num_large"), **{"labels": labels, "memory": memory} | more)


def with_gradient(loss, z, pairs, factor=1.0):
    """Loss and metrics, and the gradient of a multiple of the loss."""
    with tf.GradientTape() as tape:
        tape.watch(z)
        value, metrics = loss(z, pairs)
        objective = factor * value
    return [value, *metrics.values()], tape.gradient(objective, z)


def test_the_tables_name_every_loss():
    assert list(CASES) == list(LOSSES)
    for name, (loss, _) in CASES.items():
        assert type(LOSSES[name]()) is type(loss)
        assert getattr(LOSSES[name](), "semi_hard", None) == getattr(loss, "semi_hard", None)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("name", "setting"), TABLE)
def test_equals_loops_over_its_formula(name, setting, normalize):
    loss, oracle = CASES[name]
    loss, (num_views, which) = dataclasses.replace(loss, normalize=normalize), SETTINGS[setting]
    z = projections(num_views) * (1.0 if normalize else 0.3)
    value, metrics = loss(z, pairs_of(setting, loss))
    assert tuple(metrics) == loss.metric_names
    expected = oracle(np.reshape(z, [num_views, NUM_IMAGES, WIDTH]), normalize=normalize, **which)
    np.testing.assert_allclose([value, *metrics.values()], expected, rtol=1e-11)


@pytest.mark.parametrize(("name", "setting"), TABLE)
def test_gradient_equals_finite_differences(name, setting):
    loss, pairs = CASES[name][0], pairs_of(setting, CASES[name][0])
    z, direction = projections(pairs.num_views), projections(pairs.num_views, seed=1)
    _, gradient = with_gradient(loss, z, pairs)
    step = 1e-6 * direction
    difference = (loss(z + step, pairs)[0] - loss(z - step, pairs)[0]) / 2e-6
    assert abs(difference) > 1e-3
    np.testing.assert_allclose(tf.reduce_sum(gradient * direction), difference, rtol=1e-6)


# All settings at once, as far as a loss allows.
WHOLE = {name: "small views" if name == "supcon" else "memory and a small view" for name in CASES}
# The most different ones; tracing the others takes long.
QUICK = ("dclw", "nt_logistic_semi_hard", "supcon")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize(("name", "setting"), TABLE)
def test_blocks_add_up_to_the_whole_matrix(name, setting, monkeypatch):
    loss, pairs = CASES[name][0], pairs_of(setting, CASES[name][0])
    z = projections(pairs.num_views)
    expected, expected_gradient = with_gradient(loss, z, pairs, factor=7.0)
    monkeypatch.setattr(blocked, "ANCHORS_PER_BLOCK", 5)
    found, gradient = with_gradient(loss, z, pairs, factor=7.0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_xla_gives_the_same_numbers(name, monkeypatch):
    monkeypatch.setattr(blocked, "ANCHORS_PER_BLOCK", 5)
    loss, pairs = CASES[name][0], pairs_of(WHOLE[name], CASES[name][0])
    z = projections(pairs.num_views)
    expected, expected_gradient = with_gradient(loss, z, pairs)
    found, gradient = tf.function(lambda z: with_gradient(loss, z, pairs), jit_compile=True)(z)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_replicas_together_have_the_loss_and_the_gradient_of_one(name):
    """The images, their labels and the negatives that are mined differ between the replicas."""
    loss, num_local = CASES[name][0], NUM_IMAGES - 3
    labels = tf.constant([0, -1, 1, 1, 0, 0, -1, 1])
    pairs = pairs_of(WHOLE[name], loss, labels=labels)
    z = projections(pairs.num_views, 2 * num_local)
    rows = np.arange(len(z)).reshape([pairs.num_views, 2, num_local]).swapaxes(0, 1).reshape([2, -1])

    @tf.function
    def compare(z, labels):
        here = dataclasses.replace(pairs, labels=labels, gather=distribute.gather, replica_id=distribute.replica_id())
        (value, *metrics), gradient = with_gradient(loss, z, here, factor=0.5)
        return value, metrics, gradient

    def distributed(of_replicas):
        return strategy.experimental_distribute_values_from_function(
            lambda context: of_replicas[context.replica_id_in_sync_group]
        )

    strategy = mirrored(2)
    parts = distributed([tf.gather(z, of_one) for of_one in rows]), distributed(tf.split(labels, 2))
    results = zip(*map(strategy.experimental_local_results, tf.nest.flatten(strategy.run(compare, parts))), strict=True)
    expected, whole = with_gradient(loss, z, pairs)
    *means, gradients = zip(*results, strict=True)
    np.testing.assert_allclose([np.mean(values) for values in means], expected, rtol=1e-12)
    for of_one, gradient in zip(rows, gradients, strict=True):
        np.testing.assert_allclose(gradient, tf.gather(whole, of_one), rtol=1e-9, atol=1e-13)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def nt_xent_gradient(u, positive, negatives, t, margin):
    """Table 2 of the paper, with the sign of a loss."""
    weights = {k: np.exp(u @ v / t) for k, v in enumerate([positive, *negatives])}
    total = sum(weights.values())
    return -(1 - weights[0] / total) / t * positive + sum(
        weights[k + 1] / total / t * v for k, v in enumerate(negatives)
    )


def nt_logistic_gradient(u, positive, negatives, t, margin):
    repulsion = sum(sigmoid(u @ v / t) / t * v for v in negatives) / max(len(negatives), 1)
    return -sigmoid(-u @ positive / t) / t * positive + repulsion


def margin_gradient(u, positive, negatives, t, margin):
    return sum((v - positive) * float(u @ positive - u @ v < margin) for v in negatives) / max(len(negatives), 1)


@pytest.mark.parametrize(
    ("name", "closed_form", "semi_hard"),
    [
        ("nt_xent", nt_xent_gradient, False),
        ("nt_logistic", nt_logistic_gradient, False),
        ("nt_logistic", nt_logistic_gradient, True),
        ("margin_triplet", margin_gradient, False),
        ("margin_triplet", margin_gradient, True),
    ],
)
def test_gradients_are_those_of_table_2(name, closed_form, semi_hard):
    """With respect to u, where all vectors are of unit length and u is free: the candidates are constants."""
    settings = {"temperature": 0.5, "margin": 0.4, "semi_hard": semi_hard}
    loss = LOSSES[name](normalize=False)
    fields = {field.name for field in dataclasses.fields(loss)}
    loss = dataclasses.replace(loss, **{key: value for key, value in settings.items() if key in fields})
    z = tf.math.l2_normalize(projections(2), axis=-1)
    _, gradient = with_gradient(loss, z, Pairs(gather=lambda images: tf.constant(images.numpy())))
    kinds = set()
    for i, u in enumerate(z.numpy()):
        positive = z.numpy()[(i + NUM_IMAGES) % len(z)]
        negatives = [v for k, v in enumerate(z.numpy()) if k % NUM_IMAGES != i % NUM_IMAGES]
        if semi_hard:
            low = u @ positive - 0.4 if name == "margin_triplet" else -np.inf
            inside = [v for v in negatives if low < u @ v < u @ positive]
            negatives = sorted(inside, key=lambda v: u @ v)[-1:]  # noqa: B023
        kinds.add(len(negatives))
        expected = closed_form(u, positive, negatives, 0.5, 0.4) / len(z)
        np.testing.assert_allclose(gradient[i], expected, rtol=0, atol=1e-15)
    assert kinds == ({0, 1} if semi_hard else {2 * NUM_IMAGES - 2})


@pytest.mark.parametrize("num_views", [2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_equal_projections_give_the_collapse_value(name, num_views):
    loss = LOSSES[name]()
    value, metrics = loss(tf.ones([num_views * 6, 3]), Pairs(num_views, labels=tf.constant([0, 0, 1, -1, -1, 1])))
    assert tuple(metrics) == loss.metric_names
    expected = loss.collapse_value(num_views, 6)
    assert (expected is None) == name.endswith("semi_hard")
    if expected is not None:
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert hasattr(loss, "entropy_candidates") == (blocked.ENTROPY in metrics)
    if blocked.ENTROPY in metrics:
        np.testing.assert_allclose(np.exp(metrics[blocked.ENTROPY]), loss.entropy_candidates(num_views, 6), rtol=1e-5)


def test_no_value_indicates_a_collapse_where_none_can():
    assert NTLogistic(normalize=False).collapse_value(2, 6) is None
    assert MarginTriplet(0.0).collapse_value(2, 6) is None


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_compared_in_float32(name, dtype):
    loss = CASES[name][0]
    z, pairs = projections(2, dtype=dtype), pairs_of("two views", loss)
    (value, *metrics), gradient = with_gradient(loss, z, pairs)
    assert {one.dtype for one in (value, *metrics)} == {tf.float32} and gradient.dtype == dtype
    np.testing.assert_allclose(value, loss(tf.cast(z, tf.float32), pairs)[0], rtol=1e-6)


def test_gradient_of_large_logits_is_finite():
    z = projections(3, dtype=tf.float32) * 100
    for loss, _ in CASES.values():
        loss = dataclasses.replace(loss, normalize=False)
        values, gradient = with_gradient(loss, z, pairs_of("three views", loss))
        assert np.isfinite(values).all() and np.isfinite(gradient).all(), loss


def test_supcon_without_a_known_class_is_nt_xent():
    z = projections(3)
    found, gradient = with_gradient(SupCon(0.2), z, Pairs(3, labels=tf.fill([NUM_IMAGES], -1)))
    expected, expected_gradient = with_gradient(NTXent(0.2), z, Pairs(3))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_an_image_that_is_alone_in_its_batch_gives_a_finite_loss(name):
    """The last batch of an epoch may have one image only."""
    loss = CASES[name][0]
    pairs = Pairs(labels=tf.constant([0])) if loss.uses_labels else Pairs()
    values, gradient = with_gradient(loss, projections(2)[::NUM_IMAGES], pairs)
    assert np.isfinite(values).all() and np.isfinite(gradient).all()
    if name.startswith(("nt_xent", "dcl", "supcon")):  # These choose among the views of other images and the positive.
        assert values[0] == 0 and not np.any(gradient)


def test_semi_hard_negatives_are_dropped_where_none_is_farther_than_the_positive():
    """Both positives are opposite their anchors, so all negatives are nearer: only the attraction is left."""
    z = tf.constant([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    value, _ = NTLogistic(1.0, semi_hard=True)(z)
    np.testing.assert_allclose(value, np.log(1 + np.exp(1.0)), rtol=1e-6)
    values, gradient = with_gradient(MarginTriplet(0.8, semi_hard=True), z, Pairs())
    assert values[0] == 0 and not np.any(gradient)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NTLogistic(0.0), "temperature must be positive. Received: 0"),
        (lambda: NTLogistic(math.nan), "temperature must be positive. Received: nan"),
        (lambda: NTXent(math.nan), "temperature must be positive. Received: nan"),
        (lambda: MarginTriplet(-0.1), "margin must not be negative. Received: -0.1"),
        (lambda: MarginTriplet(math.nan), "margin must not be negative. Received: nan"),
        (lambda: MarginTriplet(0.0, semi_hard=True), "inside the margin count.* must be positive. Received: 0"),
        (lambda: DCLW(sigma=0.0), "sigma must be positive. Received: 0"),
        (lambda: SupCon()(tf.ones([4, 2])), "SupCon compares images by their classes: .* Received: no labels"),
        (
            lambda: SupCon()(tf.ones([4, 2]), Pairs(labels=tf.zeros([2], tf.int64), memory=tf.ones([1, 2]))),
            "no memory, in which images have no classes. Received: a memory",
        ),
    ],
)
def test_what_means_nothing_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["nt_xent", "dcl", "supcon"])
def test_determinism_gives_the_same_numbers(name, monkeypatch):
    """Under it, GPUs lack the operation that is used otherwise."""
    loss, pairs = CASES[name][0], pairs_of(WHOLE[name], CASES[name][0])
    z = projections(pairs.num_views)
    expected, expected_gradient = with_gradient(loss, z, pairs)
    monkeypatch.setattr(blocked, "is_op_determinism_enabled", lambda: True)
    monkeypatch.setattr(tf.raw_ops, "SparseSoftmaxCrossEntropyWithLogits", None)
    found, gradient = with_gradient(loss, z, pairs)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-12)
