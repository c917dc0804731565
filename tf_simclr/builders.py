"""The one module that turns a config into components."""

from typing import Any

from tf_simclr import distribute
from tf_simclr.augment import Augmentation
from tf_simclr.config import RunConfig
from tf_simclr.data import folders, shapes, sources, tfds
from tf_simclr.keras import keras
from tf_simclr.models.heads import ProjectionHead, linear_classifier
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import LARS
from tf_simclr.schedules import WarmupCosine, peak_learning_rate


def build_sources(config: RunConfig) -> tuple[sources.Source, sources.Source]:
    """The images to train on and those to evaluate on.

    Raises:
      FileNotFoundError: If the folder does not exist.
      ValueError: If it holds no images, or there is no such TFDS data set.
    """
    data = config.data
    if data.dataset == "shapes":
        train, evaluation = (
            sources.ArraySource(*shapes.load(split), shapes.CLASS_NAMES) for split in ("train", "test")
        )
        return train, evaluation
    if data.dataset == "folder":
        if data.data_dir is None:
            raise ValueError("dataset=folder needs data_dir, the folder of images. Received: None")
        return folders.train_and_eval_from_folder(data.data_dir)
    return (
        tfds.from_tfds(data.dataset, data.train_split, data.data_dir),
        tfds.from_tfds(data.dataset, data.eval_split, data.data_dir),
    )


def build_augmentation(config: RunConfig) -> Augmentation:
    """How the run makes views."""
    augmentation = config.augmentation
    return Augmentation(
        config.data.image_size,
        crop_sampler=augmentation.crop_sampler,
        crop_area=(augmentation.crop_min_area, 1.0),
        jitter_strength=augmentation.color_jitter_strength,
        jitter_probability=augmentation.color_jitter_probability,
        brightness=augmentation.brightness,
        grayscale_probability=augmentation.grayscale_probability,
        blur_probability=augmentation.blur_probability,
        seed=config.seed,
    )


def build_model(config: RunConfig, num_examples: int, num_classes: int | None) -> SimCLR:
    """The compiled model, with the weights that the config's seed gives.

    Args:
      config: The run.
      num_examples: Images of an epoch, from which the schedule follows.
      num_classes: Number of classes of the labels, or `None` for unlabelled images, which get no online classifier.

    Raises:
      ValueError: If the settings do not fit together, such as a warm-up longer than the run.
    """
    model = config.model
    if config.train.global_batch_size % distribute.num_replicas():
        raise ValueError(
            f"train.global_batch_size must be a multiple of the {distribute.num_replicas()} replicas. "
            f"Received: {config.train.global_batch_size}"
        )
    keras.utils.set_random_seed(config.seed)
    # LARS and AdamW decay weights themselves; LARS leaves the online classifier out, whose penalty joins the loss.
    decay = config.optimizer.weight_decay
    settings: dict[str, Any] = {
        "synchronized": model.global_bn and distribute.num_replicas() > 1,
        "batch_norm_momentum": model.batch_norm_momentum,
        "l2": decay if config.optimizer.name in ("momentum", "adam") else 0.0,
    }
    classifier = None
    if model.online_classifier and num_classes is not None:
        classifier = linear_classifier(num_classes, l2=0.0 if config.optimizer.name == "adamw" else decay)
    simclr = SimCLR(
        build_encoder(config, **settings),
        ProjectionHead(model.num_proj_layers, model.proj_out_dim, **settings),
        image_size=config.data.image_size,
        temperature=model.temperature,
        normalize=model.hidden_norm,
        objective_weight=model.objective_weight,
        augmentation=build_augmentation(config),
        online_classifier=classifier,
    )
    simclr.compile(optimizer=build_optimizer(config, simclr, num_examples), jit_compile=config.train.jit_compile)
    return simclr


def build_encoder(config: RunConfig, **settings: Any) -> keras.Model:
    """The ResNet of the config; `settings` are further arguments of `resnet`."""
    policy, _ = distribute.resolve_precision(config.train.precision)
    return resnet(
        config.model.resnet_depth,
        config.model.width_multiplier,
        config.stem,
        num_groups=config.model.num_groups,
        image_size=config.data.image_size,
        dtype=policy,
        **settings,
    )


def build_optimizer(config: RunConfig, model: SimCLR, num_examples: int) -> keras.optimizers.Optimizer:
    """The optimizer, with its variables made, so that a checkpoint can be restored before the first step."""
    settings = config.optimizer
    peak = peak_learning_rate(
        settings.base_learning_rate, config.train.global_batch_size, settings.learning_rate_scaling
    )
    schedule = WarmupCosine(peak, config.total_steps(num_examples), config.warmup_steps(num_examples))
    if settings.name == "lars":
        optimizer = LARS(schedule, settings.momentum, settings.weight_decay)
        if model.online_classifier is not None:
            optimizer.exclude_from_adaptation(model.online_classifier.trainable_variables)
    elif settings.name == "momentum":
        optimizer = keras.optimizers.SGD(schedule, settings.momentum, nesterov=True, jit_compile=False)
    elif settings.name == "adam":
        optimizer = keras.optimizers.Adam(schedule, jit_compile=False)
    else:
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay, jit_compile=False)
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if v.shape.rank <= 1])
    optimizer.build(model.trainable_variables)
    return optimizer
