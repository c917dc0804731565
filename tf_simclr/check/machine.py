"""Findings about the machine: whether its replicas agree, whether disk and memory suffice, how long the run takes."""

import dataclasses
import pathlib
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from tf_simclr import devices, distribute, files
from tf_simclr.check import measure, memory
from tf_simclr.check.equality import compare_replicas
from tf_simclr.check.findings import Finding, in_bytes
from tf_simclr.data import batches
from tf_simclr.data.sources import Source
from tf_simclr.devices import on_accelerator
from tf_simclr.export import preconditions
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.runs import checkpoints
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.settings import RunConfig

_DATA_BATCH = 32
_SMALLEST_STEP = 8  # images per replica
_GROWTH = 8
_MAX_STEP_SECONDS = 10.0
_MAX_GATHER_SHARE = 0.1
_MAX_SAVING_SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class Speed:
    """How long the parts of a step on a full batch take.

    Attributes:
      data: Seconds to make the images of a batch while nothing else runs.
      step: Seconds of the training step itself.
      images: How many images the step was measured with; `step` is scaled up from them.
    """

    data: float
    step: float
    images: int

    @property
    def seconds(self) -> float:
        """Seconds of a step of the run: accelerators compute while the CPU makes data, a CPU does both in turn."""
        return max(self.data, self.step) if on_accelerator() else self.data + self.step


def examine(
    config: RunConfig,
    strategy: tf.distribute.Strategy,
    model: EncoderTrainer | None,
    source: Source,
    folder: pathlib.Path,
) -> list[Finding]:
    """All findings about the machine. Trains the run's model, if there is one, and leaves it useless.

    Call it outside the scope of the run's strategy, on all its workers.
    """
    logging.info("Comparing the replicas with one")
    findings = [compare_replicas(config, strategy), *_export(config, source, folder)]
    if model is None:
        return findings
    with strategy.scope():
        try:
            speed = _measure_speed(config, model, source)
        except tf.errors.ResourceExhaustedError as error:
            return [*findings, _no_memory(config, source, error), *_disk(config, model, None, source, folder)]
        findings += [*_gather(config, strategy, model, speed, source), *_speed(config, speed, source)]
        findings += [*_disk(config, model, speed, source, folder), _length(config, speed, source, folder)]
    return findings


def _export(config: RunConfig, source: Source, folder: pathlib.Path) -> Iterator[Finding]:
    """What would stop the export once the training is over, and what would keep others from loading it."""
    for problem in preconditions.unmet(config, source, folder):
        yield Finding("fail", "export", f"The export would fail: {problem}.", "Change this before the training.")
    if not files.reads_as_written(str(folder.absolute())):
        yield Finding(
            "warn", "export", f"TensorFlow does not read the path {folder} as it is written; this run works around it, "
            "but other programs cannot load its export from there.",
            "Choose another --model_dir, or copy the export to another folder before you load it.",
        )  # fmt: skip


def _measure_speed(config: RunConfig, model: EncoderTrainer, source: Source) -> Speed:
    """Measures data first, then steps with more and more images, up to the batch, while they should stay short."""
    whole, count = config.global_batch_size(source.num_examples), distribute.num_replicas()
    size = min(_DATA_BATCH, whole, source.num_examples)
    logging.info("Measuring how fast batches are made")
    dataset = batches.train_dataset(
        source,
        global_batch_size=size,
        seed=config.seed,
        total_steps=1 << 20,
        augmentation=model.augmentation,
        small_views=model.small_views,
        data_service=config.data.service,
    )
    batch, images_per_second = measure.data_speed(dataset, size)
    images = min(whole, _SMALLEST_STEP * count)
    while True:
        logging.info("Measuring a step with %d of the batch's %d images; the graph takes longest", images, whole)
        per_image = measure.step_seconds(model, batch, images) / images
        # Small batches are slower per image, so a step that is short at this rate stays short.
        sizes = (whole, images * _GROWTH)
        more = next((n for n in sizes if n * per_image <= _MAX_STEP_SECONDS and _fits(config, model, n // count)), 0)
        more = -distribute.largest_of_workers(-more)  # what fits on all machines
        if not images < more <= whole:
            return Speed(whole / images_per_second, whole * per_image, images)
        images = more


def _fits(config: RunConfig, model: EncoderTrainer, images_on_replica: int) -> bool:
    """Whether a step may be tried: if a CPU runs out of memory, the system kills the process without a word."""
    needed = sum(memory.estimate(model, memory.images_at_once(config, images_on_replica)))
    return on_accelerator() or needed * distribute.replicas_here() < 0.8 * devices.total_memory()


def _no_memory(config: RunConfig, source: Source, error: tf.errors.OpError) -> Finding:
    return Finding(
        "fail", "speed", f"A step does not fit into the device's memory: {error.message.splitlines()[0]}.",
        f"Lower --train_batch_size (it is {config.global_batch_size(source.num_examples):,}) or set --microbatch_size.",
    )  # fmt: skip


def _gather(
    config: RunConfig, strategy: tf.distribute.Strategy, model: EncoderTrainer, speed: Speed, source: Source
) -> Iterator[Finding]:
    count = distribute.num_replicas()
    if count == 1 or config.train_mode != "pretrain":
        return
    logging.info("Measuring the all-gather")
    width = model.projection_head.output_dim if model.projection_head.num_layers else model.encoder.output_shape[-1]
    batch = config.global_batch_size(source.num_examples)
    num_views = model.pairs.num_candidate_views
    seconds = measure.gather_seconds(strategy, batch // count, num_views, width)
    size = 4 * batch * num_views * width
    is_slow = seconds > _MAX_GATHER_SHARE * speed.step
    yield Finding(
        "warn" if is_slow else "pass", "gather",
        f"The {count} replicas exchange the projections of a batch, {num_views} x {batch:,} x {width} in float32 "
        f"({in_bytes(size)}), in {seconds * 1e3:.2g} ms: {in_bytes(size / seconds)}/s, {seconds / speed.step:.1%} of a "
        "step.",
        "The connection between the devices slows the run down: use fewer replicas or a larger network." if is_slow
        else "",
    )  # fmt: skip


def _speed(config: RunConfig, speed: Speed, source: Source) -> Iterator[Finding]:
    batch = config.global_batch_size(source.num_examples)
    waits = speed.data > speed.step
    found = f"Batches are made at {_rate(batch / speed.data)} images/s, and the step processes "
    found += f"{_rate(batch / speed.step)} images/s: {'data' if waits else 'compute'} is the bottleneck."
    if config.data.cache == "disk":
        found += " The first rate is without data.cache=disk."
    yield Finding(
        "warn" if waits else "pass", "speed", found,
        "See docs/input_speed.md for faster data." if waits else "",
    )  # fmt: skip
    if speed.images < batch:
        yield Finding(
            "info", "speed", f"The step was measured with {speed.images:,} of the {batch:,} images of a batch, because "
            "more would take too long or too much memory; its time is scaled up.",
        )  # fmt: skip


def _rate(images_per_second: float) -> str:
    return f"{images_per_second:,.0f}" if images_per_second >= 10 else f"{images_per_second:.2g}"


def _disk(
    config: RunConfig, model: EncoderTrainer, speed: Speed | None, source: Source, folder: pathlib.Path
) -> Iterator[Finding]:
    checkpoint, needed, free = checkpoints.space(config, model, folder)
    found = f"{config.train.keep_checkpoints} checkpoints of {in_bytes(checkpoint)} and the export take up to "
    found += f"{in_bytes(needed)} more, and {in_bytes(free)} are free"
    if free <= needed:
        advice = "Free some space, lower --keep_checkpoint_max, or choose another --model_dir."
        yield Finding("fail", "disk", f"{found}.", advice)
        return
    try:
        bytes_per_second = measure.write_speed(folder, min(checkpoint, free // 2))
    except OSError as error:
        yield Finding("fail", "disk", f"{folder} cannot be written: {error.strerror}.", "Choose another --model_dir.")
        return
    seconds = checkpoint / bytes_per_second
    found += f"; writing one takes {seconds:.2g} s ({in_bytes(bytes_per_second)}/s)"
    between = config.checkpoint_steps(source.num_examples) * speed.seconds if speed else float("inf")
    is_slow = seconds > _MAX_SAVING_SHARE * between
    yield Finding(
        "warn" if is_slow else "pass", "disk", found + (f", every {between:.2g} s." if is_slow else "."),
        "Save less often (--checkpoint_epochs), or on a faster disk (--model_dir)." if is_slow else "",
    )  # fmt: skip


def _length(config: RunConfig, speed: Speed, source: Source, folder: pathlib.Path) -> Finding:
    total = config.total_steps(source.num_examples)
    done = max(list_checkpoints(folder), default=0)
    left = max(0, total - done)
    steps = f"the {total:,} steps" if not done else f"the {left:,} of {total:,} steps that are left"
    return Finding(
        "info", "time", f"About {_duration(left * speed.seconds)} for {steps}, {speed.seconds:.2g} s each, plus "
        "evaluation and export.",
    )  # fmt: skip


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
