"""Models the cost of a training step on R devices, for devices and batches that are not at hand.

    python benchmarks/scale.py

Prints the tables of docs/scale.md, which has the formulas and the sources of the constants. The network is traced, not
run: FLOPs, weights and batch norms are counted in the Keras model.
"""

import math
import os
import pathlib
import sys
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from tf_simclr import ProjectionHead, resnet, suggest_microbatch  # noqa: E402
from tf_simclr.keras import keras  # noqa: E402

DEVICES = (1, 4, 16, 64, 256, 1024)
BATCHES = (256, 1024, 4096, 16384, 65536)
VIEWS = 2
FLOAT_BYTES = 4
# Keras sums values, squares and counts over the replicas and, in the backward pass, the gradients of the first two.
SUMS_PER_BATCH_NORM = 5
# Products of anchors with candidates: the similarities, the gradients along anchors and along candidates.
NT_XENT_PRODUCTS = 3
# How often the similarities of a block are read or written: product 1, mask 2, cross entropy 2, argmax 1, entropy 2,
# gradients along anchors and candidates 2.
NT_XENT_PASSES = 10
# The work of an accelerator's host: from a JPEG of 500 x 375 px to two crops of 224 px (docs/input_speed.md).
HOST_SECONDS_PER_IMAGE = 2.4e-3
# SimCLR, section 2.3: ResNet-50 on ImageNet.
PAPER_IMAGES, PAPER_EPOCHS, PAPER_BATCH, PAPER_CORES, PAPER_HOURS = 1_281_167, 100, 4096, 128, 1.5


class Network(NamedTuple):
    """An encoder and its projection head in numbers; FLOPs are those of one view, forward and backward."""

    step_flops: float
    num_weights: int
    batch_norm_channels: tuple[int, ...]
    projection_dim: int
    image_size: int


class Machine(NamedTuple):
    """Devices in machines, or pairs of devices in a square torus. FLOP/s, bytes/s, seconds."""

    name: str
    peak: float  # of a device, in the precision of the training
    float32_peak: float  # of a device, for products of float32 as TensorFlow computes them
    share: float  # of the peak that training a ResNet-50 reaches
    memory: float  # of a device
    devices: int  # of a machine
    link: float  # what a ring of devices carries within a machine
    network: float  # what a ring of machines carries
    start: float  # latency of starting a collective operation
    link_hop: float  # latency from device to device
    network_hop: float  # latency from machine to machine
    is_torus: bool = False


class Collective(NamedTuple):
    """A collective operation: "gather" or "reduce", and how many bytes a replica contributes."""

    kind: str
    num_bytes: int


def machines(step_flops: float) -> list[Machine]:
    """The machines of the tables; `step_flops` turns published images per second into shares of the peak."""
    tpu, a100, v100 = 1.05e6 / 2048 * step_flops, 2375 * step_flops, 1270 * step_flops
    cpu = 12.2 * step_flops
    hops = (4.4e-6, 0.52e-6)
    return [
        Machine("TPU v3 cores", 61.5e12, 61.5e12, tpu / 61.5e12, 450e9, 2048, 332e9, 332e9, 0.0, 1e-6, 0.0, True),
        Machine("A100, 8 per machine", 312e12, 156e12, a100 / 312e12, 1555e9, 8, 235e9, 200e9, *hops, 5e-6),
        Machine("V100, 8 per machine", 125e12, 15.7e12, v100 / 125e12, 900e9, 8, 150e9, 12.5e9, *hops, 76e-6),
        Machine("2 CPU cores per machine", cpu, 82e9, 1.0, math.inf, 1, 1.25e9, 1.25e9, 0.0, 0.0, 76e-6),
    ]


@tf.function
def compute(encoder: keras.Model, head: ProjectionHead, views: tf.Tensor) -> list[tf.Tensor]:
    """Forward and backward pass."""
    with tf.GradientTape() as tape:
        projections = head(encoder(views, training=True), training=True)
    return tape.gradient(projections, encoder.trainable_variables + head.trainable_variables)


def describe(encoder: keras.Model, head: ProjectionHead, image_size: int) -> Network:
    """Traces a step of one view and counts."""
    view = tf.TensorSpec([1, image_size, image_size, 3])
    head(encoder(keras.Input(view.shape[1:])))  # creates the weights of the head
    layers = (*encoder.submodules, *head.submodules)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    return Network(
        count_flops(compute.get_concrete_function(encoder, head, view).graph),
        sum(variable.shape.num_elements() for variable in encoder.trainable_variables + head.trainable_variables),
        tuple(layer.moving_mean.shape[0] for layer in norms),
        head.output_dim,
        image_size,
    )


def count_flops(graph: tf.Graph) -> float:
    """FLOPs of the convolutions and matrix products that a graph's outputs need: two for every product."""
    needed, waiting = set(), [output.op for output in graph.outputs]
    while waiting:
        if (operation := waiting.pop()) not in needed:
            needed.add(operation)
            waiting += [tensor.op for tensor in operation.inputs]
    flops = 0.0
    for operation in needed:
        tensors = [*operation.inputs, *operation.outputs]
        if operation.type == "MatMul":
            # (m k) (k n) (m n) is the square of m k n.
            flops += 2 * math.sqrt(math.prod(tensor.shape.num_elements() for tensor in tensors))
        elif operation.type in ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"):
            # Every pixel of the convolution's result, or of its gradient, meets the whole kernel, or its gradient.
            kernel = tensors[3] if operation.type == "Conv2DBackpropFilter" else tensors[1]
            pixels = tensors[2].shape.num_elements() / kernel.shape[-1]
            flops += 2 * pixels * kernel.shape.num_elements()
    return flops


def gather_collectives(network: Network, batch: int, replicas: int, *, on_tpu: bool = False) -> list[Collective]:
    """The operations that show all projections, float32 [B, V, D], to every replica and return their gradients.

    TensorFlow gathers shapes, then rows. For the gradient, it sums the gradient of all rows over the replicas, and each
    replica takes its own rows. On a TPU, a sum gathers the rows too: every replica contributes zeros for the others'.
    """
    if replicas == 1:
        return []
    num_bytes = batch * VIEWS * network.projection_dim * FLOAT_BYTES
    if on_tpu:
        return [Collective("reduce", num_bytes)] * 2
    return [Collective("gather", 3 * 4), Collective("gather", num_bytes // replicas), Collective("reduce", num_bytes)]


def batch_norm_collectives(network: Network, replicas: int) -> list[Collective]:
    """The sums of synchronised batch norm, float32 under every precision. The next layer waits for each of them."""
    sums = [Collective("reduce", FLOAT_BYTES * channels) for channels in network.batch_norm_channels]
    return sums * SUMS_PER_BATCH_NORM if replicas > 1 else []


def gradient_collectives(network: Network, replicas: int) -> list[Collective]:
    """One sum of all gradients, float32, when the backward pass has ended."""
    return [Collective("reduce", FLOAT_BYTES * network.num_weights)] if replicas > 1 else []


def collective_seconds(operation: Collective, machine: Machine, replicas: int) -> float:
    """Latency plus a ring: a replica sends what it gathers from the others, or 2 (R - 1) / R of what is summed."""
    num_machines = math.ceil(replicas / machine.devices)
    if machine.is_torus:
        hops = 4 * (math.sqrt(max(1, replicas / 2)) - 1) * machine.link_hop
    else:
        chain, depth = min(replicas, machine.devices) - 1, math.ceil(math.log2(num_machines))
        hops = 2 * (chain * machine.link_hop + depth * machine.network_hop)
    bandwidth = machine.link if num_machines == 1 else min(machine.link, machine.network)
    times = replicas - 1 if operation.kind == "gather" else 2 * (replicas - 1) / replicas
    return machine.start + hops + times * operation.num_bytes / bandwidth


def compute_seconds(network: Network, machine: Machine, batch: int, replicas: int) -> float:
    """Forward and backward pass of a replica's views, through encoder and head."""
    return VIEWS * batch / replicas * network.step_flops / (machine.peak * machine.share)


def nt_xent_seconds(network: Network, machine: Machine, batch: int, replicas: int) -> float:
    """A replica's anchors against all candidates: the products, then the passes over the similarities in memory."""
    similarities = (VIEWS * batch / replicas) * (VIEWS * batch)
    flops = 2 * NT_XENT_PRODUCTS * similarities * network.projection_dim
    num_bytes = NT_XENT_PASSES * FLOAT_BYTES * similarities
    return flops / (machine.float32_peak * machine.share) + num_bytes / machine.memory


def step_seconds(network: Network, machine: Machine, batch: int, replicas: int) -> dict[str, float]:
    """Seconds of every term. TensorFlow overlaps none of them, so a step takes their sum."""
    operations = {
        "gather": gather_collectives(network, batch, replicas, on_tpu=machine.is_torus),
        "batch norm": batch_norm_collectives(network, replicas),
        "gradients": gradient_collectives(network, replicas),
    }
    return {
        "compute": compute_seconds(network, machine, batch, replicas),
        "NT-Xent": nt_xent_seconds(network, machine, batch, replicas),
        **{name: sum(collective_seconds(one, machine, replicas) for one in many) for name, many in operations.items()},
    }


def print_table(titles: list[str], rows: list[list[str]]) -> None:
    """Prints a Markdown table whose first column is text."""
    print()
    for cells in (titles, ["---", *["---:"] * (len(titles) - 1)], *rows):
        print("|", " | ".join(cells), "|")


def number(value: float) -> str:
    """The value with three digits."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def print_counts(network: Network) -> None:
    """Prints what the network costs on any machine."""
    norms = network.batch_norm_channels
    print(f"ResNet-50 at 224 px with a projection head of 2 layers: {network.step_flops / 1e9:.2f} GFLOP per view,")
    print(f"{network.num_weights:,} weights, {len(norms)} batch norms with {sum(norms):,} channels")
    operations = {
        "projections": gather_collectives(network, PAPER_BATCH, PAPER_CORES),
        "projections, TPU": gather_collectives(network, PAPER_BATCH, PAPER_CORES, on_tpu=True),
        "synchronised batch norm": batch_norm_collectives(network, PAPER_CORES),
        "gradients": gradient_collectives(network, PAPER_CORES),
    }
    sizes = {name: sum(one.num_bytes for one in many) / 1e6 for name, many in operations.items()}
    rows = [[name, f"{len(many)}", f"{sizes[name]:.2f}"] for name, many in operations.items()]
    print_table([f"batch {PAPER_BATCH:,} on {PAPER_CORES} devices", "operations", "MB from each device"], rows)


def print_steps(network: Network, machine: Machine, batch: int) -> None:
    """Prints the terms of one batch, and what feeding the devices takes."""
    speed = machine.peak * machine.share / 1e12
    print(f"\n{machine.name}, at {speed:.3g} TFLOP/s ({machine.share:.1%}): milliseconds of a step of batch {batch:,}")
    rows = []
    for replicas in DEVICES:
        seconds = step_seconds(network, machine, batch, replicas)
        step = sum(seconds.values())
        per_device = batch / replicas / step
        crops = VIEWS * 3 * network.image_size**2  # uint8
        feeding = [per_device * crops / 1e6, per_device * HOST_SECONDS_PER_IMAGE]
        numbers = [*(1e3 * value for value in (*seconds.values(), step)), batch / step, *feeding]
        rows.append([f"{replicas:,}", *map(number, numbers)])
    print_table(["devices", *seconds, "step", "images/s", "input MB/s per device", "host cores per device"], rows)


def print_shares(network: Network, machine: Machine) -> None:
    """Prints the share of compute in a step, and the largest other term."""
    print(f"\n{machine.name}: share of compute in a step, and the largest other term")
    rows = []
    for replicas in DEVICES:
        cells = [f"{replicas:,}"]
        for batch in BATCHES:
            compute, *others = step_seconds(network, machine, batch, replicas).items()
            share = compute[1] / (compute[1] + sum(value for _, value in others))
            largest = max(others, key=lambda term: term[1])[0]
            cells.append(f"{share:.0%} {largest}" if batch >= replicas else "")
        rows.append(cells)
    print_table(["devices", *(f"batch {batch:,}" for batch in BATCHES)], rows)


def print_limits(network: Network, all_machines: list[Machine]) -> None:
    """Prints where a term takes as long as compute. The gather grows with the batch, NT-Xent with its square."""
    rows = []
    for machine in all_machines:
        image = compute_seconds(network, machine, 1, 1)
        replicas = DEVICES[-1]
        once, twice = (step_seconds(network, machine, count * replicas, replicas) for count in (1, 2))
        gather_per_image = (twice["gather"] - once["gather"]) / replicas
        limits = [once["batch norm"] / image, once["gradients"] / image, image / gather_per_image]
        limits.append(image / nt_xent_seconds(network, machine, 1, 1))
        rows.append([machine.name, *(number(float(f"{limit:.2g}")) for limit in limits)])
    titles = ["batch norm, images per device", "gradients, images per device", "gather, devices", "NT-Xent, batch"]
    print_table([f"as long as compute, {DEVICES[-1]:,} devices", *titles], rows)


def print_paper(network: Network, tpu: Machine) -> None:
    """Prints the paper's training time beside the model's."""
    steps = PAPER_EPOCHS * (PAPER_IMAGES // PAPER_BATCH)
    seconds = step_seconds(network, tpu, PAPER_BATCH, PAPER_CORES)
    published, predicted = PAPER_HOURS * 3600 / steps, sum(seconds.values())
    share = tpu.share * seconds["compute"] / (published - predicted + seconds["compute"])
    print(f"\nThe paper: {PAPER_CORES} TPU v3 cores, batch {PAPER_BATCH:,}, {PAPER_EPOCHS} epochs, {steps:,} steps")
    for name, step, reached in (("predicted", predicted, tpu.share), ("published", published, share)):
        speed = f"{steps * step / 3600:.2f} h, {1e3 * step:.0f} ms a step, {PAPER_BATCH / step:,.0f} images/s"
        print(f"{name}: {speed}, {reached:.1%} of the peak")


def main() -> None:
    """Prints the tables."""
    # In half precision, a CPU computes some gradients as products that leave the zeros of the padding out.
    network = describe(resnet(50, image_size=224), ProjectionHead(2), 224)
    encoder = resnet(50, image_size=224, dtype="mixed_bfloat16")
    print_counts(network)
    fitting = {gigabytes: suggest_microbatch(encoder, 224, gigabytes * 1e9) for gigabytes in (16, 40)}
    print("\nimages at once:", ", ".join(f"{images} in {gigabytes} GB" for gigabytes, images in fitting.items()))
    all_machines = machines(network.step_flops)
    for machine in all_machines:
        print_steps(network, machine, PAPER_BATCH)
        print_shares(network, machine)
    print_limits(network, all_machines)
    print_paper(network, all_machines[0])


if __name__ == "__main__":
    main()
