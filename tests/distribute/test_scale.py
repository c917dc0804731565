"""The cost model of many replicas: its terms against what a training step does."""

import math
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from paths import ROOT
from replicas import mirrored
from tensorflow.python.ops import collective_ops
from tiny import tiny_encoder

from benchmarks import scale
from tf_simclr.augment import Augmentation
from tf_simclr.losses import NTXent, Pairs
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import LARS

SIZE, BATCH = 16, 8


def make_step(replicas, synchronized, dtype="float32"):
    """A step of all replicas on zeros, and what the cost model knows of its network."""
    strategy = mirrored(replicas, collective=True)
    with strategy.scope():
        encoder, head = tiny_encoder(dtype, synchronized), ProjectionHead(2, 5, synchronized=synchronized)
        model = SimCLR(encoder, head, image_size=SIZE, augmentation=Augmentation(SIZE))
        model.compile(optimizer=LARS(0.1), jit_compile=False)
        model.optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        images = tf.zeros([BATCH // replicas, SIZE, SIZE, 3], tf.uint8)
        return strategy.run(model.train_step, (images,))

    # The same network again, outside of the strategy.
    return step, scale.describe(tiny_encoder("float32"), ProjectionHead(2, 5), SIZE)


def expected_collectives(network, replicas, synchronized):
    operations = scale.gather_collectives(network, BATCH, replicas) + scale.gradient_collectives(network, replicas)
    return operations + (scale.batch_norm_collectives(network, replicas) if synchronized else [])


@pytest.fixture
def recorded(monkeypatch):
    """(kind, dtype, bytes) of what every replica puts into a collective operation, in place of the operation."""
    calls = []

    def stand_in(kind):
        def record(tensor, group_size, *_, **__):
            def note(value):
                calls.append((kind, value.dtype.name, value.nbytes))
                return value

            noted = tf.ensure_shape(tf.numpy_function(note, [tensor], tensor.dtype), tensor.shape)
            return noted if kind == "reduce" else tf.concat([noted] * group_size, axis=0)

        return record

    monkeypatch.setattr(collective_ops, "all_reduce_v2", stand_in("reduce"))
    monkeypatch.setattr(collective_ops, "all_gather_v2", stand_in("gather"))
    return calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replicas", "synchronized", "dtype"),
    [(2, True, "float32"), (2, False, "float32"), (4, True, "mixed_bfloat16")],
)
def test_a_step_communicates_what_the_model_says(recorded, replicas, synchronized, dtype):
    step, network = make_step(replicas, synchronized, dtype)
    step()
    expected = Counter(expected_collectives(network, replicas, synchronized))
    counted = Counter((kind, num_bytes) for kind, _, num_bytes in recorded)
    assert counted == {tuple(operation): replicas * count for operation, count in expected.items()}
    assert {dtype for kind, dtype, _ in recorded if kind == "reduce"} == {"float32"}


def test_the_graph_of_a_step_has_the_operations_that_were_counted():
    step, network = make_step(2, synchronized=True)
    types = Counter(operation.type for operation in step.get_concrete_function().graph.get_operations())
    kinds = Counter(operation.kind for operation in expected_collectives(network, 2, synchronized=True))
    assert types["CollectiveReduceV2"] == 2 * kinds["reduce"] > 0
    assert types["CollectiveGatherV2"] == 2 * kinds["gather"] > 0


def test_one_device_communicates_nothing():
    network = scale.Network(1.0, 10, (3, 4), 5, 16)
    assert expected_collectives(network, 1, synchronized=True) == []


def test_flops_of_a_network_that_can_be_counted_by_hand():
    """3 x 3 pixels of 6 channels, kernels of 5 x 5 x 3; dense layers 6 to 6 and 6 to 5; no gradient to the image."""
    network = scale.describe(tiny_encoder("float32"), ProjectionHead(2, 5), 16)
    convolution, dense = 2 * 9 * 6 * 75, 2 * (6 * 6 + 6 * 5)
    assert network.step_flops == 2 * convolution + 3 * dense
    assert network.num_weights == 450 + 12 + 36 + 12 + 30 + 5  # The last batch norm has no offset.
    assert sorted(network.batch_norm_channels) == [5, 6, 6]


def test_flops_are_those_that_the_profiler_counts():
    # Without strides, for which the profiler takes the padding for pixels.
    encoder = resnet(10, 0.25, "cifar", num_groups=1, image_size=8)

    @tf.function
    def step(views, kernel):
        with tf.GradientTape() as tape:  # Of all there is, because the profiler counts what no output needs as well.
            tape.watch([views, kernel])
            loss = tf.reduce_mean(tf.matmul(encoder(views, training=True), kernel))
        return tape.gradient(loss, [views, kernel, *encoder.trainable_variables])

    graph = step.get_concrete_function(tf.TensorSpec([3, 8, 8, 3]), tf.TensorSpec([16, 7])).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation() | {"output": "none"}
    profile = tf.compat.v1.profiler.profile(graph, cmd="op", options=options)
    counts = {}
    while profile.children:  # A chain: every entry is the child of the one before.
        profile = profile.children[0]
        counts[profile.name] = profile.float_ops
    kinds = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter", "MatMul")
    assert scale.count_flops(graph) == pytest.approx(sum(counts[kind] for kind in kinds), rel=1e-3)


@pytest.mark.slow
def test_flops_of_resnet_50_are_the_published_ones():
    """4.09 G multiplications at 224 px forward (torchvision), less 2 M of its classifier, and twice that backward."""
    network = scale.describe(resnet(50, image_size=224), ProjectionHead(0), 224)
    stem_gradient = 112 * 112 * 64 * 7 * 7 * 3  # Along the image, which nobody asks for.
    assert network.step_flops / 2 == pytest.approx(3 * (4.09e9 - 2.05e6) - stem_gradient, rel=2e-3)
    assert network.num_weights == 25_557_032 - 2_049_000


def test_nt_xent_multiplies_as_often_as_the_model_says(monkeypatch):
    replicas, num_local, width = 4, 64, 8
    flops, product = [], tf.matmul

    def count(a, b, **kwargs):
        result = product(a, b, **kwargs)
        flops.append(2 * math.sqrt(math.prod(tensor.shape.num_elements() for tensor in (a, b, result))))
        return result

    monkeypatch.setattr(tf, "matmul", count)
    projections = tf.random.stateless_normal([2 * num_local, width], [0, 1])
    NTXent()(projections, Pairs(gather=lambda rows: tf.tile(rows, [replicas, 1, 1])))
    network = scale.Network(0.0, 0, (), width, 0)
    machine = ideal_machine(bandwidth=math.inf)
    assert scale.nt_xent_seconds(network, machine, replicas * num_local, replicas) == pytest.approx(sum(flops))


def ideal_machine(bandwidth):
    """One FLOP/s, no latency."""
    return scale.Machine("ideal", 1.0, 1.0, 1.0, math.inf, 1024, bandwidth, bandwidth, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("replicas", [2, 3, 8])
def test_a_ring_sends_what_the_model_says(replicas):
    """A ring that sums, chunk by chunk: every round, every replica sends one chunk to the next."""
    rng, sent = np.random.default_rng(0), 0
    values = rng.integers(0, 99, [replicas, replicas, 5]).astype(np.float32)  # replica, chunk, rows of the chunk
    total = values.sum(axis=0)
    for turn in range(2 * (replicas - 1)):
        before = values.copy()
        for replica in range(replicas):
            chunk, reader = (replica - turn) % replicas, (replica + 1) % replicas
            values[reader, chunk] = before[replica, chunk] + (before[reader, chunk] if turn < replicas - 1 else 0)
        sent += before[0, 0].nbytes
    np.testing.assert_array_equal(values, np.broadcast_to(total, values.shape))
    machine = ideal_machine(bandwidth=1.0)
    assert scale.collective_seconds(scale.Collective("reduce", total.nbytes), machine, replicas) == pytest.approx(sent)
    gathered = scale.Collective("gather", total[0].nbytes)  # The second half of the rounds alone.
    assert scale.collective_seconds(gathered, machine, replicas) == pytest.approx(sent / 2)


def test_latency_counts_the_hops():
    machine = scale.Machine("tree", 1, 1, 1, 1, 4, math.inf, math.inf, 100.0, 1.0, 10.0)
    nothing = scale.Collective("reduce", 0)
    # In a machine to the first device and back; between machines up a tree and down again.
    assert [scale.collective_seconds(nothing, machine, replicas) for replicas in (1, 4, 8, 16)] == [100, 106, 126, 146]
    # Pairs of cores, 4 x 4 of them: three hops along each side to gather the sums, three to hand them out.
    assert scale.collective_seconds(nothing, machine._replace(is_torus=True), 32) == 100 + 2 * 2 * 3


@pytest.mark.slow
def test_the_document_shows_what_the_command_prints(capsys):
    scale.main()
    document = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| ", "predicted", "published"))]
    assert len(rows) > 30
    assert [row for row in rows if row not in document] == []
