"""LARS, Muon and the learning rate schedule against the reference's numbers and NumPy oracles."""

import json

import numpy as np
import pytest
import tensorflow as tf
from oracles import adam_step, lars_step, muon_step, orthogonalized

from tf_simclr import devices
from tf_simclr.keras import keras
from tf_simclr.optimizers import LARS, Muon, orthogonal
from tf_simclr.schedules import WarmupCosine, peak_learning_rate


@pytest.mark.parametrize("weight_decay", ["0.0", "0.0001", "0.01"])
def test_lars_equals_the_reference(golden_dir, weight_decay):
    golden = np.load(golden_dir / "lars.npz")
    start = f"wd{weight_decay}/init/"
    names = [key.removeprefix(start) for key in golden if key.startswith(start)]
    variables = {name: tf.Variable(golden[start + name]) for name in names}
    optimizer = LARS(0.7, weight_decay=float(weight_decay))
    optimizer.exclude_from_adaptation([variables[name] for name in names if "head_supervised" in name])
    for step in range(8):
        gradients = [tf.constant(golden[f"wd{weight_decay}/grad{step}/{name}"]) for name in names]
        optimizer.apply_gradients(zip(gradients, variables.values(), strict=True))
        for name, variable in variables.items():
            np.testing.assert_allclose(
                variable, golden[f"wd{weight_decay}/after{step}/{name}"], rtol=2e-5, atol=1e-6, err_msg=f"{step} {name}"
            )


def test_lars_equals_the_oracle_with_a_schedule():
    rng = np.random.default_rng(0)
    schedule = WarmupCosine(0.5, total_steps=6, warmup_steps=2)
    values = [rng.normal(size=[3, 4]), rng.normal(size=[4]), np.zeros([2, 2]), rng.normal(size=[2, 3])]
    is_adapted = [True, False, True, False]
    variables = [tf.Variable(value) for value in values]
    velocities = [np.zeros_like(value) for value in values]
    optimizer = LARS(schedule, momentum=0.8, weight_decay=0.1, trust_coefficient=0.02)
    optimizer.exclude_from_adaptation(variables[3:])
    for step in range(6):
        gradients = [rng.normal(size=value.shape) for value in values]
        optimizer.apply_gradients(zip(map(tf.constant, gradients), variables, strict=True))
        for index, gradient in enumerate(gradients):
            values[index], velocities[index] = lars_step(
                values[index],
                gradient,
                velocities[index],
                learning_rate=float(schedule(step)),
                momentum=0.8,
                weight_decay=0.1,
                trust_coefficient=0.02,
                adapt=is_adapted[index],
            )
            np.testing.assert_allclose(variables[index], values[index], rtol=1e-6, atol=1e-9)


def test_lars_serialises():
    optimizer = LARS(WarmupCosine(1.0, 10, 2), momentum=0.8, weight_decay=1e-4, trust_coefficient=0.01, clipnorm=3.0)
    custom = {"LARS": LARS, "WarmupCosine": WarmupCosine}
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer), custom_objects=custom)
    assert restored.get_config() == optimizer.get_config()
    assert restored.coupled_weight_decay == 1e-4


@pytest.mark.parametrize("optimizer", [LARS, Muon])
@pytest.mark.parametrize("arguments", [{"momentum": 1.0}, {"weight_decay": -1e-4}])
def test_values_out_of_range_are_rejected(optimizer, arguments):
    with pytest.raises(ValueError, match="Received"):
        optimizer(0.1, **arguments)


@pytest.mark.parametrize("on_accelerator", [False, True])
@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (36, 4)])
def test_orthogonal_moves_singular_values_only(shape, on_accelerator, monkeypatch):
    monkeypatch.setattr(devices, "on_accelerator", lambda: on_accelerator)
    matrix = np.random.default_rng(0).normal(size=shape)
    found = orthogonal(tf.constant(matrix)).numpy()
    np.testing.assert_allclose(found, orthogonalized(matrix), rtol=0, atol=1e-9)
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    values = np.diag(u.T @ found @ v.T)[values > 0.01 * np.linalg.norm(matrix)]
    assert len(values) > 2 and 0.68 < values.min() <= values.max() < 1.21
    np.testing.assert_array_equal(orthogonal(tf.zeros(shape)), 0)


def test_muon_equals_the_oracle_with_a_schedule():
    """A convolution's kernel, a dense one, a vector, and a classifier's kernel, which are Adam's."""
    rng = np.random.default_rng(0)
    schedule = WarmupCosine(0.5, total_steps=6, warmup_steps=2)
    values = [rng.normal(size=shape) for shape in ([3, 3, 4, 5], [4, 6], [4], [2, 3])]
    decays = [0.1, 0.1, 0.0, 0.1]
    variables = [tf.Variable(value) for value in values]
    optimizer = Muon(schedule, momentum=0.8, weight_decay=0.1)
    optimizer.exclude_from_orthogonalization(variables[3:])
    optimizer.exclude_from_weight_decay(variables[2:3])
    velocities, squares = ([np.zeros_like(value) for value in values] for _ in range(2))
    for step in range(6):
        gradients = [rng.normal(size=value.shape) for value in values]
        optimizer.apply_gradients(zip(map(tf.constant, gradients), variables, strict=True))
        for i, gradient in enumerate(gradients):
            settings = {"learning_rate": float(schedule(step)), "weight_decay": decays[i]}
            if i < 2:
                values[i], velocities[i] = muon_step(values[i], gradient, velocities[i], momentum=0.8, **settings)
            else:
                values[i], velocities[i], squares[i] = adam_step(
                    values[i], gradient, velocities[i], squares[i], step=step + 1, **settings
                )
            np.testing.assert_allclose(variables[i], values[i], rtol=1e-6, atol=1e-7, err_msg=f"{step} {i}")


def test_a_step_of_muon_is_as_large_as_one_of_adam():
    gradient = tf.random.stateless_normal([3, 3, 16, 32], (0, 0))
    for learning_rate in (1e-3, 1e-2):
        kernel = tf.Variable(tf.zeros_like(gradient))
        Muon(learning_rate).apply_gradients([(gradient, kernel)])
        assert 0.15 * learning_rate < np.std(kernel) < 0.25 * learning_rate


@pytest.mark.parametrize("on_accelerator", [False, True])
@pytest.mark.parametrize("values", [lambda i: 1 / i, lambda i: 1 / i**2, lambda i: (i <= 4).astype(float)])
def test_small_singular_values_do_not_grow_from_rounding(values, on_accelerator, monkeypatch):
    """Of float32 on a CPU; on an accelerator, products of TensorFloat-32 keep 10 bits."""
    rng = np.random.default_rng(0)
    u, _, v = np.linalg.svd(rng.normal(size=[288, 64]), full_matrices=False)
    matrix = (u * values(np.arange(1, 65))) @ v
    product = tf.matmul

    def rounded(tensor):
        bits = tf.bitcast(tensor, tf.int32)
        return tf.bitcast((bits + (1 << 12)) & ~((1 << 13) - 1), tf.float32)

    monkeypatch.setattr(devices, "on_accelerator", lambda: on_accelerator)
    if on_accelerator:
        monkeypatch.setattr(tf, "matmul", lambda a, b, **how: product(rounded(a), rounded(b), **how))
    with tf.device("CPU"):
        found = orthogonal(tf.constant(matrix, tf.float32))
    error = np.linalg.norm(found - orthogonalized(matrix)) / np.linalg.norm(orthogonalized(matrix))
    assert error < (5e-3 if on_accelerator else 1e-3)


def test_orthogonal_bears_a_matrix_of_rank_1_in_bfloat16():
    """Whose Gram matrix has small negative eigenvalues from rounding, which the polynomial would let grow."""
    vectors = tf.random.stateless_normal([2, 288], (0, 0))
    found = orthogonal(tf.cast(vectors[0, :, None] * vectors[1, :64], tf.bfloat16))
    assert 0.5 < np.linalg.norm(tf.cast(found, tf.float32), 2) < 1.5


@pytest.mark.parametrize("make", [lambda: Muon(0.1, weight_decay=0.1), lambda: LARS(0.1, weight_decay=0.1)])
def test_a_step_rounds_alike_in_every_process(make):
    """TensorFlow's optimizer of graphs makes one sum of nested ones, in an order that depends on the process."""
    optimizer, variables = make(), [tf.Variable(tf.random.normal(shape)) for shape in ([3, 3, 3, 64], [64, 8], [8])]
    optimizer.build(variables)
    step = tf.function(lambda *gradients: optimizer.apply_gradients(zip(gradients, variables, strict=True)))
    graph = step.get_concrete_function(*(tf.TensorSpec(variable.shape) for variable in variables)).graph
    sums = [operation for operation in graph.get_operations() if operation.type in ("AddV2", "AddN")]
    nested = [
        operation.name for operation in sums
        if operation.outputs[0].shape.rank and any(operand.op in sums for operand in operation.inputs)
    ]  # fmt: skip
    assert nested == []


def test_what_is_left_to_adam_is_said_before_muon_is_built():
    kernel, depthwise = tf.Variable(tf.ones([4, 4])), tf.Variable(tf.ones([3, 3, 4, 1]))
    optimizer = Muon()
    optimizer.build([kernel, depthwise])
    assert [squares is None for squares in optimizer._squares] == [True, False]
    with pytest.raises(ValueError, match="must be excluded before the optimizer is built"):
        optimizer.exclude_from_orthogonalization([kernel])


def test_lars_says_by_what_it_excludes_from_weight_decay():
    with pytest.raises(ValueError, match="use exclude_from_adaptation"):
        LARS(0.1, weight_decay=0.1).exclude_from_weight_decay([tf.Variable(tf.ones([2, 2]))])


@pytest.mark.parametrize("make", [lambda: LARS(0.1, weight_decay=1.0), lambda: Muon(0.1, weight_decay=1.0)])
def test_what_is_excluded_stays_so_in_every_copy(make):
    values = [np.ones([3, 2], np.float32), np.ones([2, 2], np.float32), np.ones([2], np.float32)]
    optimizer, variables = make(), [tf.Variable(value) for value in values]
    if isinstance(optimizer, Muon):
        optimizer.exclude_from_orthogonalization(variables[1:2])
        optimizer.exclude_from_weight_decay(variables[2:])
    else:
        optimizer.exclude_from_adaptation(variables[1:2])
    optimizer.build(variables)
    config = optimizer.get_config()
    copies = [type(optimizer).from_config(config) for _ in range(2)]
    for one in copies:  # The same config makes the same optimizer twice.
        of_copy = [tf.Variable(value) for value in values]
        one.build(of_copy)
        assert one.get_config() == config
        for step in range(2):
            gradients = [tf.constant(np.random.default_rng(step).normal(size=v.shape), tf.float32) for v in values]
            one.apply_gradients(zip(gradients, of_copy, strict=True))
            if one is copies[0]:
                optimizer.apply_gradients(zip(gradients, variables, strict=True))
        for found, expected in zip(of_copy, variables, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_muon_serialises():
    optimizer = Muon(WarmupCosine(1.0, 10, 2), momentum=0.8, weight_decay=1e-4, clipnorm=3.0)
    custom = {"Muon": Muon, "WarmupCosine": WarmupCosine}
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer), custom_objects=custom)
    assert restored.get_config() == optimizer.get_config()
    assert restored.get_config()["weight_decay"] == 1e-4


def test_schedule_equals_the_reference(golden_dir):
    for case in json.loads((golden_dir / "schedule.json").read_text()):
        peak = peak_learning_rate(case["learning_rate"], case["batch"], case["scaling"])
        schedule = WarmupCosine(peak, case["total_steps"], case["warmup_steps"])
        for step, expected in zip(case["steps"], case["lr"], strict=True):
            np.testing.assert_allclose(schedule(step), expected, rtol=1e-5, atol=1e-6 * peak, err_msg=str((case, step)))


def test_schedule_serialises():
    schedule = WarmupCosine(0.3, 20, 4, name="learning_rate")
    assert WarmupCosine.from_config(schedule.get_config()).get_config() == schedule.get_config()


@pytest.mark.parametrize("warmup_steps", [10, 11, -1])
def test_schedule_rejects_a_warmup_longer_than_the_run(warmup_steps):
    with pytest.raises(ValueError, match="warm-up must end before the run does"):
        WarmupCosine(1.0, total_steps=10, warmup_steps=warmup_steps)


def test_peak_learning_rate_rejects_an_unknown_scaling():
    with pytest.raises(ValueError, match="Received: cubic"):
        peak_learning_rate(0.3, 512, "cubic")
