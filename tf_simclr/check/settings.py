"""Findings about what the settings of a run imply."""

from collections.abc import Iterator

import tensorflow as tf

from tf_simclr import builders, devices, distribute
from tf_simclr.check import memory
from tf_simclr.check.findings import Finding, in_bytes
from tf_simclr.devices import on_accelerator
from tf_simclr.evaluation import feasibility
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.runs import models
from tf_simclr.schedules import peak_learning_rate
from tf_simclr.settings import RunConfig

_MIN_STEPS_PER_EPOCH = 10
_MAX_WARMUP_SHARE = 0.25
_MAX_MEMORY_SHARE = 0.7
_HOPELESS_MEMORY_SHARE = 1.4  # the estimate was up to 1.4 times the measured memory
_SMALL_PX = 32
# Muon's learning rate times its weight decay times the steps of a run: what is best, and what is far from it. A run of
# fewer steps is a trial.
_BEST_DECAY, _LEAST_DECAY, _MOST_DECAY, _MIN_STEPS_OF_DECAY = 10, 1, 30, 100


def examine(
    config: RunConfig, num_examples: int, num_classes: int | None
) -> tuple[list[Finding], EncoderTrainer | None]:
    """All findings about the settings, and the run's model if it can be built. Call it in the scope of the strategy."""
    findings = [*_length(config, num_examples), *_augmentation(config), *_decay(config, num_examples)]
    try:
        model = models.initial_model(config, num_examples, num_classes)
    except (ValueError, FileNotFoundError) as error:
        return [*findings, Finding("fail", "settings", f"The run would stop: {error}.", "Change these settings.")], None
    at_once = memory.images_at_once(config, config.global_batch_size(num_examples) // distribute.num_replicas())
    return [*findings, _memory(memory.estimate(model, at_once), at_once)], model


def evaluation(config: RunConfig, images: builders.Sources) -> Iterator[Finding]:
    """What would stop the evaluation once the training is over."""
    try:
        feasibility.check(config, images, tf.distribute.get_strategy())
    except (ValueError, FileNotFoundError) as error:
        yield Finding(
            "fail",
            "evaluation",
            f"The evaluation would stop: {error}.",
            "Change this first, or only train (--mode=train).",
        )


def _length(config: RunConfig, num_examples: int) -> Iterator[Finding]:
    batch = config.global_batch_size(num_examples)
    steps_per_epoch = num_examples // batch
    total, warmup = config.total_steps(num_examples), config.warmup_steps(num_examples)
    if steps_per_epoch == 0:
        yield Finding(
            "fail", "batch size",
            f"A batch needs {batch:,} images, but there are only {num_examples:,} training images.",
            "Lower --train_batch_size, or add images.",
        )  # fmt: skip
        return
    yield Finding(
        "info", "length",
        f"An epoch has {steps_per_epoch:,} steps of {batch:,} images; the run has {total:,} steps "
        f"({total * batch / num_examples:.1f} epochs), {warmup:,} of them ({warmup / total:.0%}) warm-up.",
    )  # fmt: skip
    if steps_per_epoch < _MIN_STEPS_PER_EPOCH:
        yield Finding(
            "warn", "batch size", f"A batch of {batch:,} holds {batch / num_examples:.0%} of the images: an epoch has "
            f"{steps_per_epoch} steps.", "Lower --train_batch_size, so that the weights are updated more often.",
        )  # fmt: skip
    if _MAX_WARMUP_SHARE * total < warmup < total:
        yield Finding(
            "warn", "warm-up", f"The learning rate rises for {warmup:,} of the {total:,} steps.",
            "Lower --warmup_epochs to a tenth of the run, or train for longer (--train_epochs).",
        )  # fmt: skip


def _augmentation(config: RunConfig) -> Iterator[Finding]:
    blurs = "blur" in config.augmentation.operators and config.augmentation.blur_probability > 0
    if config.train_mode == "pretrain" and blurs and config.view_size <= _SMALL_PX:
        yield Finding(
            "warn", "blur", f"Half of the views would be blurred at {config.view_size} px, "
            "where there is little detail to spare.", "Use --use_blur=False, as the paper does for CIFAR-10.",
        )  # fmt: skip


def _decay(config: RunConfig, num_examples: int) -> Iterator[Finding]:
    optimizer, steps = config.optimizer, config.total_steps(num_examples)
    starts_anew = config.train_mode == "pretrain" and not config.checkpoint
    if not starts_anew or optimizer.name != "muon" or steps < _MIN_STEPS_OF_DECAY:
        return
    batch = config.global_batch_size(num_examples)
    travelled = steps * peak_learning_rate(optimizer.base_learning_rate, batch, optimizer.learning_rate_scaling)
    decayed = travelled * optimizer.weight_decay
    if travelled > 0 and not _LEAST_DECAY <= decayed <= _MOST_DECAY:
        yield Finding(
            "warn", "weight decay", f"Muon's learning rate, times its weight decay, times {steps:,} steps, is "
            f"{decayed:.2g}; the best of the measured runs, of 300 and 1,800 steps, had 6 to 15 (docs/method.md).",
            f"Use --weight_decay={_BEST_DECAY / travelled:.2g}.",
        )  # fmt: skip


def _memory(needed: memory.Memory, batch: int) -> Finding:
    size, count = sum(needed), distribute.replicas_here()
    found = f"A step takes about {in_bytes(size)} on each device: {in_bytes(needed.parameters)} for parameters and "
    found += f"gradients, {in_bytes(needed.optimizer)} for the optimizer, {in_bytes(needed.activations)} for the "
    found += f"activations of {batch:,} images."
    if on_accelerator():
        return Finding("info", "memory", found)  # How much memory an accelerator has is not known until it runs out.
    has = devices.total_memory()
    share = count * size / has
    found += f" This machine has {in_bytes(has)}" + (f" for {count} devices." if count > 1 else ".")
    severity = "fail" if share > _HOPELESS_MEMORY_SHARE else "warn" if share > _MAX_MEMORY_SHARE else "pass"
    advice = "Lower --train_batch_size or the size of the views, set --microbatch_size, or use a smaller network."
    return Finding(severity, "memory", found, advice if severity != "pass" else "")
