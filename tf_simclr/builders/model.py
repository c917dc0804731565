"""The model of a run, from its settings."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

from tf_simclr import devices, distribute
from tf_simclr.augment import FIRST_SMALL_VIEW, Augmentation, RandomCrop, crop_and_flip
from tf_simclr.augment.crop import MIN_COVERED_AREA
from tf_simclr.builders.chain import build_branches, build_shared_crop
from tf_simclr.builders.encoder import build_encoder, freeze
from tf_simclr.builders.optimizer import build_optimizer
from tf_simclr.keras import keras
from tf_simclr.losses import LOSSES, Loss
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.distiller import Distiller, RepresentationDistiller
from tf_simclr.models.heads import ProjectionHead, linear_classifier
from tf_simclr.models.momentum import MomentumSimCLR
from tf_simclr.models.resnet import NUM_GROUPS
from tf_simclr.models.simclr import SimCLR
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.settings import SETTINGS, RunConfig, check_name, typed


def build_augmentation(config: RunConfig) -> Augmentation:
    """The augmentation of a run.

    Raises:
      ValueError: If an operator's name is unknown, or the operators do not fit together.
    """
    settings = config.augmentation
    branches = build_branches(settings, settings.num_views)
    return Augmentation(config.view_size, branches=branches, seed=config.seed, shared_crop=build_shared_crop(settings))


def build_small_views(config: RunConfig) -> Augmentation | None:
    """The augmentation of the small views of a run, if it has any: the branches of the others, with small crops.

    A branch that takes the whole image gets such a crop, too.

    Raises:
      ValueError: If an operator's name is unknown, or the sampler takes no crops as small as these.
    """
    if config.small_view_size is None:
        return None
    settings = config.augmentation
    if settings.crop_sampler == "tensorflow" and settings.small_crop_max_area < MIN_COVERED_AREA:
        raise ValueError(
            f"augmentation.small_crop_max_area must be at least {MIN_COVERED_AREA}, the smallest crop of the sampler "
            f"tensorflow: use {typed(augmentation__crop_sampler='uniform_area')}. "
            f"Received: {settings.small_crop_max_area:g}"
        )
    large = build_augmentation(config)
    crop = RandomCrop(settings.crop_sampler, (settings.small_crop_min_area, settings.small_crop_max_area))
    chains = itertools.islice(itertools.cycle(large.branches), settings.num_small_views)
    small = tuple((crop, *operators) for _, *operators in chains)
    return dataclasses.replace(large, image_size=config.small_view_size, branches=small, first_view=FIRST_SMALL_VIEW)


def build_loss(config: RunConfig) -> Loss:
    """The contrastive loss of a run.

    Raises:
      ValueError: If the loss's name is unknown.
    """
    model = config.model
    check_name("model.loss", model.loss, LOSSES)
    fields = {field.name for field in dataclasses.fields(LOSSES[model.loss]())}
    given = {"temperature": model.temperature, "normalize": model.hidden_norm, "margin": model.margin}
    return LOSSES[model.loss](**{name: value for name, value in given.items() if name in fields})


def build_head(config: RunConfig, **settings: Any) -> ProjectionHead:
    """The projection head of a run; for its settings, see `build_encoder`."""
    model = config.model
    return ProjectionHead(model.num_proj_layers, model.proj_out_dim, hidden_dim=model.proj_hidden_dim, **settings)


def build_model(
    config: RunConfig, num_examples: int, num_classes: int | None, teacher_width: int | None = None
) -> EncoderTrainer:
    """The compiled model, with new weights; `runs.models.initial_model` seeds them.

    Args:
      config: The run; `train_mode` decides on the model.
      num_examples: Images per epoch, which determine the schedule.
      num_classes: Number of classes of the labels, or `None` for unlabelled images, which get no classifier.
      teacher_width: How many numbers the teacher of a distillation gives for an image.

    Raises:
      ValueError: If the settings do not fit together, such as a warm-up longer than the run.
    """
    check_sizes(config, num_examples)
    if config.train_mode != "distill" and config.distill.teacher is not None:
        raise ValueError(
            f"--teacher is for --train_mode=distill: use {typed(distill__teacher=None)} with "
            f"--train_mode={config.train_mode}. Received: {config.distill.teacher}"
        )
    # LARS, AdamW and Muon decay weights themselves. For the others, the loss penalises all weights except batch norm's.
    # Batch norm computes statistics for each micro-batch separately.
    settings: dict[str, Any] = {
        "synchronized": config.model.global_bn and distribute.num_replicas() > 1 and not config.train.microbatch_size,
        "batch_norm_momentum": config.model.batch_norm_momentum,
        "l2": _decay_in_loss(config),
    }
    encoder = build_encoder(config, **settings)
    head = build_head(config, **settings)
    if config.train_mode == "distill":
        model: EncoderTrainer = build_distiller(config, encoder, head, num_classes, teacher_width or 0)
    else:
        build = build_simclr if config.train_mode == "pretrain" else build_classifier
        model = build(config, encoder, head, num_classes)
    optimizer = build_optimizer(config, model, num_examples)
    model.compile(
        optimizer=optimizer,
        jit_compile=devices.resolve_jit_compile(config.train.jit_compile),
        steps_per_execution=config.train.steps_per_execution,
    )
    return model


def check_sizes(config: RunConfig, num_examples: int) -> None:
    """Checks the settings that must fit the number of images and of replicas.

    Raises:
      ValueError: If the batch does not, or the warm-up is longer than the run; the error names values that do.
    """
    batch_size, replicas = config.global_batch_size(num_examples), distribute.num_replicas()
    if batch_size % replicas:
        fitting = max(1, batch_size // replicas) * replicas
        raise ValueError(
            f"{SETTINGS['train.global_batch_size'].title} must be a multiple of the {replicas} replicas: use "
            f"{typed(train__global_batch_size=fitting)}. Received: {batch_size}"
        )
    if config.trains and batch_size > num_examples:
        fitting = num_examples // replicas * replicas
        remedy = f"add images, or use {typed(train__global_batch_size=fitting)}" if fitting > 1 else "add images"
        raise ValueError(
            f"There are fewer images than one batch holds: {remedy}. "
            f"Received: {num_examples} images and a batch of {batch_size}"
        )
    total, warmup = config.total_steps(num_examples), config.warmup_steps(num_examples)
    if warmup >= total:
        longer = typed(train__steps=10 * warmup) if config.train.steps else typed(train__epochs=_epochs(config))
        raise ValueError(
            f"The warm-up must end before the run does: use {typed(optimizer__warmup_epochs=0)}, or {longer}. "
            f"Received: {warmup} warm-up steps ({config.optimizer.warmup_epochs:g} epochs), {total} total steps"
        )


def _epochs(config: RunConfig) -> int:
    """Epochs of which the warm-up is a tenth."""
    return math.ceil(10 * config.optimizer.warmup_epochs)


def build_simclr(config: RunConfig, encoder: keras.Model, head: ProjectionHead, num_classes: int | None) -> SimCLR:
    """The model of contrastive pretraining.

    Raises:
      ValueError: If the loss needs labels, and there are none, or it cannot use a memory.
    """
    model, loss = config.model, build_loss(config)
    is_trained = config.trains or config.mode == "check"
    if is_trained and getattr(loss, "uses_labels", False) and num_classes is None:
        raise ValueError(
            f"--loss={model.loss} compares images by their classes: put the images into one folder for each class, or "
            f"use {typed(model__loss='nt_xent')}. Received: images without classes"
        )
    classifier = None
    if model.online_classifier and num_classes is not None:
        classifier = _linear_classifier(config, num_classes)
    kind: Callable[..., SimCLR] = SimCLR
    if model.memory_size is not None:
        kind = functools.partial(MomentumSimCLR, memory_size=model.memory_size, memory_momentum=model.memory_momentum)
    return kind(
        encoder,
        head,
        image_size=config.data.image_size,
        loss=loss,
        objective_weight=model.objective_weight,
        augmentation=build_augmentation(config),
        small_views=build_small_views(config),
        small_view_pairs=config.augmentation.small_view_pairs,
        online_classifier=classifier,
        classifier_layer=model.classifier_layer,
        microbatch_size=config.train.microbatch_size or 0,
    )


def build_classifier(
    config: RunConfig, encoder: keras.Model, head: ProjectionHead, num_classes: int | None
) -> Classifier:
    """The model of fine-tuning and of supervised training."""
    if num_classes is None:
        raise ValueError(
            f"--train_mode={config.train_mode} needs labels: put the images into one folder for each class, or use "
            "--train_mode=pretrain. Received: images without classes"
        )
    model = Classifier(
        encoder,
        _linear_classifier(config, num_classes, zero_init=config.finetune.zero_init),
        image_size=config.data.image_size,
        projection_head=head,
        classifier_layer=config.model.classifier_layer,
        augmentation=crop_and_flip(build_augmentation(config)),
    )
    if config.finetune.after_block is not None:
        freeze(encoder, config.finetune.after_block)
    if config.finetune.after_block == NUM_GROUPS:
        head.freeze_from(0)
    return model


def build_distiller(
    config: RunConfig, encoder: keras.Model, head: ProjectionHead, num_classes: int | None, teacher_width: int
) -> Distiller | RepresentationDistiller:
    """The model that learns from a teacher, still without it."""
    distill, augmentation = config.distill, crop_and_flip(build_augmentation(config))
    if distill.target == "representations":
        return RepresentationDistiller(
            encoder,
            image_size=config.data.image_size,
            teacher_width=teacher_width,
            distance=distill.distance,
            l2=_decay_in_loss(config),
            augmentation=augmentation,
        )
    if distill.label_weight is not None and num_classes is None:
        raise ValueError(
            "--distill_label_weight needs labels: put images into one folder for each class, or use "
            f"{typed(distill__label_weight=None)}. Received: images without classes"
        )
    if num_classes not in (None, teacher_width):
        raise ValueError(
            "The teacher must have the classes of the images: choose another --teacher, or use "
            f"{typed(distill__target='representations')}. "
            f"Received: {teacher_width} classes of the teacher and {num_classes} of the images"
        )
    return Distiller(
        encoder,
        _linear_classifier(config, teacher_width, zero_init=config.finetune.zero_init),
        projection_head=head,
        classifier_layer=config.model.classifier_layer,
        temperature=distill.temperature,
        label_weight=distill.label_weight,
        image_size=config.data.image_size,
        augmentation=augmentation,
    )


def _linear_classifier(config: RunConfig, num_classes: int, *, zero_init: bool = False) -> keras.layers.Layer:
    """The classifier. The loss penalises it, except where AdamW, Muon or a student's LARS decays it."""
    name, decay = config.optimizer.name, config.optimizer.weight_decay
    decays_itself = name in ("adamw", "muon") or (name == "lars" and config.train_mode == "distill")
    return linear_classifier(
        num_classes,
        l2=0.0 if decays_itself else decay,
        bias_l2=_decay_in_loss(config),
        zero_init=zero_init,
    )


def _decay_in_loss(config: RunConfig) -> float:
    """The weight decay of an optimizer that leaves it to the loss."""
    return config.optimizer.weight_decay if config.optimizer.name in ("momentum", "adam") else 0.0
