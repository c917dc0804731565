"""The one module that turns a config into components."""

import pathlib
from typing import Any, NamedTuple

import tensorflow as tf

from tf_simclr import distribute
from tf_simclr.augment import Augmentation
from tf_simclr.config import DataConfig, RunConfig
from tf_simclr.data import cache, folders, images, shapes, sources, tfds
from tf_simclr.data.broken import BrokenFiles
from tf_simclr.keras import keras
from tf_simclr.models.classifier import Classifier, crop_and_flip
from tf_simclr.models.heads import ProjectionHead, linear_classifier
from tf_simclr.models.resnet import NUM_GROUPS, ResNet, check_image_size, resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import LARS
from tf_simclr.schedules import WarmupCosine, peak_learning_rate


class Sources(NamedTuple):
    """The images of a run.

    Attributes:
      train: What the model is trained on.
      probe: Labelled images that the evaluation learns from: `train`, if that has labels.
      test: Labelled images that it is tested on.
    """

    train: sources.Source
    probe: sources.Source
    test: sources.Source


def build_sources(config: RunConfig, folder: pathlib.Path) -> Sources:
    """Opens the images of a run.

    Args:
      config: The run.
      folder: The run's folder, which remembers the broken files in `data_report.json` and has the cache on the disk.

    Raises:
      FileNotFoundError: If the folder does not exist.
      ValueError: If it holds no images, or too many broken ones, there is no such TFDS data set, or the cache has not
        enough space.
    """
    data = config.data
    if data.cache != "none" and data.service:
        raise ValueError(
            "data.cache keeps images on this machine, data.service reads them on others: choose one. "
            f"Received: cache={data.cache}, service={data.service}"
        )
    broken = BrokenFiles(folder / "data_report.json", data.max_broken_fraction)
    options: dict[str, Any] = {
        "image_feature": data.image_feature,
        "label_feature": data.label_feature,
        "max_pixels": data.max_pixels,
    }
    train, test = _open_sources(data, broken, options)
    probe = train
    if data.eval_data_dir is not None and train.num_classes is not None:
        test = images.open_images(data.eval_data_dir, class_names=train.class_names, broken=broken, **options)
    elif data.eval_data_dir is not None:
        probe, test = images.open_train_and_eval(data.eval_data_dir, broken=broken, **options)
    broken.write()
    broken.check()
    opened = (train, probe, test)
    kept = {id(source): cache.keep(source, data.cache, folder / "decoded_images") for source in opened}
    return Sources(*(kept[id(source)] for source in opened))


def _open_sources(
    data: DataConfig, broken: BrokenFiles, options: dict[str, Any]
) -> tuple[sources.Source, sources.Source]:
    if data.dataset == "shapes":
        train, evaluation = (
            sources.ArraySource(*shapes.load(split), shapes.CLASS_NAMES) for split in ("train", "test")
        )
        return train, evaluation
    if data.dataset == "folder":
        if data.data_dir is None:
            raise ValueError("dataset=folder needs data_dir, the folder of images. Received: None")
        if data.eval_data_dir is None:
            return images.open_train_and_eval(data.data_dir, broken=broken, **options)
        train_folder, _ = folders.split_folders(data.data_dir)
        everything = images.open_images(train_folder, broken=broken, **options)
        return everything, everything
    return (
        tfds.from_tfds(data.dataset, data.train_split, data.data_dir, broken=broken, **options),
        tfds.from_tfds(data.dataset, data.eval_split, data.data_dir, broken=broken, **options),
    )


def build_augmentation(config: RunConfig) -> Augmentation:
    """How the run makes views."""
    augmentation = config.augmentation
    return Augmentation(
        config.view_size,
        crop_sampler=augmentation.crop_sampler,
        crop_area=(augmentation.crop_min_area, 1.0),
        jitter_strength=augmentation.color_jitter_strength,
        jitter_probability=augmentation.color_jitter_probability,
        brightness=augmentation.brightness,
        grayscale_probability=augmentation.grayscale_probability,
        blur_probability=augmentation.blur_probability,
        seed=config.seed,
    )


def build_model(config: RunConfig, num_examples: int, num_classes: int | None) -> SimCLR | Classifier:
    """The compiled model, with the weights that the config's seed gives.

    Args:
      config: The run; `train_mode` decides on the model.
      num_examples: Images of an epoch, from which the schedule follows.
      num_classes: Number of classes of the labels, or `None` for unlabelled images, which get no classifier.

    Raises:
      ValueError: If the settings do not fit together, such as a warm-up longer than the run.
    """
    if config.train.global_batch_size % distribute.num_replicas():
        raise ValueError(
            f"train.global_batch_size must be a multiple of the {distribute.num_replicas()} replicas. "
            f"Received: {config.train.global_batch_size}"
        )
    keras.utils.set_random_seed(config.seed)
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    # LARS and AdamW decay weights themselves. For the others the penalty on all weights but batch norm is in the loss.
    # The statistics of a micro-batch are its own.
    settings: dict[str, Any] = {
        "synchronized": config.model.global_bn and distribute.num_replicas() > 1 and not config.train.microbatch_size,
        "batch_norm_momentum": config.model.batch_norm_momentum,
        "l2": config.optimizer.weight_decay if config.optimizer.name in ("momentum", "adam") else 0.0,
    }
    encoder = build_encoder(config, **settings)
    head = ProjectionHead(config.model.num_proj_layers, config.model.proj_out_dim, **settings)
    build = build_simclr if config.train_mode == "pretrain" else build_classifier
    model = build(config, encoder, head, num_classes)
    optimizer = build_optimizer(config, model, num_examples)
    model.compile(
        optimizer=optimizer,
        jit_compile=distribute.resolve_jit_compile(config.train.jit_compile),
        steps_per_execution=config.train.steps_per_execution,
    )
    return model


def build_simclr(config: RunConfig, encoder: ResNet, head: ProjectionHead, num_classes: int | None) -> SimCLR:
    """The model of contrastive pretraining."""
    model = config.model
    classifier = None
    if model.online_classifier and num_classes is not None:
        classifier = _linear_classifier(config, num_classes)
    return SimCLR(
        encoder,
        head,
        image_size=config.data.image_size,
        temperature=model.temperature,
        normalize=model.hidden_norm,
        objective_weight=model.objective_weight,
        augmentation=build_augmentation(config),
        online_classifier=classifier,
        classifier_layer=model.classifier_layer,
        microbatch_size=config.train.microbatch_size,
    )


def build_classifier(config: RunConfig, encoder: ResNet, head: ProjectionHead, num_classes: int | None) -> Classifier:
    """The model of fine-tuning and of supervised training."""
    if num_classes is None:
        raise ValueError(f"train_mode={config.train_mode} needs labels. Received: images without classes")
    model = Classifier(
        encoder,
        _linear_classifier(config, num_classes, zero_init=config.finetune.zero_init),
        image_size=config.data.image_size,
        projection_head=head,
        classifier_layer=config.model.classifier_layer,
        augmentation=crop_and_flip(build_augmentation(config)),
    )
    if config.finetune.after_block >= 0:
        encoder.freeze(config.finetune.after_block)
    if config.finetune.after_block == NUM_GROUPS:
        head.freeze_from(0)
    return model


def _linear_classifier(config: RunConfig, num_classes: int, *, zero_init: bool = False) -> keras.layers.Layer:
    """The classifier, which LARS leaves without decay: there the penalty on its kernel is in the loss, as elsewhere."""
    name, decay = config.optimizer.name, config.optimizer.weight_decay
    return linear_classifier(
        num_classes,
        l2=0.0 if name == "adamw" else decay,
        bias_l2=decay if name in ("momentum", "adam") else 0.0,
        zero_init=zero_init,
    )


def build_encoder(config: RunConfig, **settings: Any) -> ResNet:
    """The ResNet of the config; `settings` are further arguments of `resnet`."""
    policy, _ = distribute.resolve_precision(config.train.precision)
    sizes = {config.data.image_size, config.view_size}
    check_image_size(min(sizes), config.stem, config.model.num_groups)
    return resnet(
        config.model.resnet_depth,
        config.model.width_multiplier,
        config.stem,
        num_groups=config.model.num_groups,
        sk_ratio=config.model.sk_ratio,
        se_ratio=config.model.se_ratio,
        image_size=config.data.image_size if len(sizes) == 1 else None,
        dtype=policy,
        **settings,
    )


def build_optimizer(config: RunConfig, model: SimCLR | Classifier, num_examples: int) -> keras.optimizers.Optimizer:
    """The optimizer, with its variables made, so that a checkpoint can be restored before the first step."""
    settings = config.optimizer
    peak = peak_learning_rate(
        settings.base_learning_rate, config.train.global_batch_size, settings.learning_rate_scaling
    )
    schedule = WarmupCosine(peak, config.total_steps(num_examples), config.warmup_steps(num_examples))
    if settings.name == "lars":
        optimizer = LARS(schedule, settings.momentum, settings.weight_decay)
        if model.classifier is not None:
            optimizer.exclude_from_adaptation(model.classifier.trainable_variables)
    elif settings.name == "momentum":
        optimizer = keras.optimizers.SGD(schedule, settings.momentum, nesterov=True, jit_compile=False)
    elif settings.name == "adam":
        optimizer = keras.optimizers.Adam(schedule, jit_compile=False)
    else:
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay, jit_compile=False)
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if v.shape.rank <= 1])
    optimizer.build(model.trainable_variables)
    return optimizer
