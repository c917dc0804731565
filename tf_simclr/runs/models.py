"""The model of a run: new, restored, or started from the weights of another run."""

import tensorflow as tf
from absl import logging

from tf_simclr import builders, devices
from tf_simclr.data import sources
from tf_simclr.keras import keras
from tf_simclr.models.momentum import MomentumSimCLR
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.runs import architecture, checkpoints, teachers, weights
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.runs.export_inputs import ExportInputs
from tf_simclr.runs.folder import run_folder
from tf_simclr.runs.saved_settings import folder_of_run
from tf_simclr.settings import RunConfig, override, typed


def initial_model(
    config: RunConfig, num_examples: int, num_classes: int | None, teacher_width: int | None = None
) -> EncoderTrainer:
    """Builds the run's model with its initial weights, which follow from the config's seed.

    Seeds the random numbers of Python, NumPy and TensorFlow. Call it in the scope of the run's strategy. A model that
    learns from a teacher gets it, unless the width of its answers is given.

    Args:
      config: The run.
      num_examples: Images per epoch.
      num_classes: Number of classes of the labels, or `None` for unlabelled images.
      teacher_width: How many numbers the run's teacher gives for an image.

    Raises:
      FileNotFoundError: If there is no such teacher.
      ValueError: If the settings do not fit together.
    """
    teacher = None
    if config.train_mode == "distill" and teacher_width is None:
        teacher = teachers.open_teacher(config)
        teacher_width = teacher.width
    keras.utils.set_random_seed(config.seed)
    model = builders.build_model(config, num_examples, num_classes, teacher_width)
    if teacher is not None:
        teachers.teach(config, model, teacher)
    return model


def load_model(
    config: RunConfig, source: sources.Source | ExportInputs
) -> tuple[EncoderTrainer, tf.train.Checkpoint, int]:
    """Builds the run's model and restores its newest checkpoint.

    A run without a checkpoint of its own starts from `config.checkpoint`, if that is set. Call it in the scope of the
    run's strategy.

    Args:
      config: The run.
      source: The images to train on, or what is kept of them.

    Returns:
      The model, its checkpoint object, and the step of the restored checkpoint, or 0 without one.

    Raises:
      FileNotFoundError: If `config.checkpoint` names no weights.
      ValueError: If the settings do not fit together, the weights do not fit the model, or no checkpoint can be read.
    """
    logging.info("Precision %s: %s", *devices.resolve_precision(config.train.precision))
    num_classes = source.num_classes
    has_own = bool(list_checkpoints(run_folder(config)))
    if config.checkpoint is not None and not has_own and not config.trains:
        # The checkpoint stays as it is: what it lacks would be random numbers.
        heads = architecture.read_heads(config.checkpoint)
        num_classes = _classes_as_they_are(config, num_classes, heads.pop("num_classes"))
        config = override(config, {f"model.{name}": value for name, value in heads.items()})
    teacher_width = teachers.kept_width(run_folder(config)) if has_own else None
    model = initial_model(config, source.num_examples, num_classes, teacher_width)
    checkpoint = checkpoints.make_checkpoint(model)
    step = checkpoints.restore_latest(checkpoint, run_folder(config))
    if step == 0 and config.checkpoint is not None:
        # The checkpoint's classifier may have seen the labels that this training must not see.
        is_new = config.trains and (config.finetune.zero_init or config.data.label_percent < 100)
        if not config.trains:
            _check_classifier(config.checkpoint, model, config.model.classifier_layer)
        start_from(config.checkpoint, model, has_new_classifier=is_new)
    return model, checkpoint, step


def _classes_as_they_are(config: RunConfig, of_images: int | None, of_checkpoint: int | None) -> int | None:
    """How many classes the model of a checkpoint has that is evaluated or exported; None for no classifier."""
    if of_checkpoint is None and config.train_mode in ("finetune", "supervised"):
        raise ValueError(
            f"The checkpoint has no classifier: use its encoder with {typed(train_mode='pretrain')}. "
            f"Received: {config.checkpoint}"
        )
    if config.mode == "export":  # Whatever the images are.
        return of_checkpoint
    return None if config.train_mode == "pretrain" and of_images != of_checkpoint else of_images


def _check_classifier(checkpoint: str, model: EncoderTrainer, layer: int) -> None:
    """Raises a `ValueError` if the model's classifier, which is not trained, is not that of the checkpoint.

    Warns where nothing tells which layer of the head it reads: many are as wide as the representation.
    """
    here, there = model.classifier, architecture.read_classifier(checkpoint)
    if here is None:
        return
    if not model.is_pretrained and model.projection_head.num_layers and folder_of_run(checkpoint) is None:
        logging.warning(
            "%s does not tell what its classifier reads. It is taken to be layer %d of the projection head (0 is the "
            "representation); if it is another, say so with --ft_proj_selector",
            checkpoint, layer,
        )  # fmt: skip
    if tuple(here.kernel.shape) != there:
        raise ValueError(
            "The classifier of the checkpoint must be that of the model: say which layer it reads "
            f"({typed(model__classifier_layer=1)}), and take images of its classes. "
            f"Received: {there} features and classes, in place of {tuple(here.kernel.shape)}"
        )


def load_trained_model(config: RunConfig, source: sources.Source | ExportInputs) -> EncoderTrainer:
    """Loads the run's model as `load_model` does, but never with initial weights.

    Raises:
      FileNotFoundError: If the run has no checkpoint and `config.checkpoint` is not set.
    """
    model, _, step = load_model(config, source)
    if step == 0 and config.checkpoint is None:
        raise FileNotFoundError(
            f"{run_folder(config)} holds no checkpoint: train first (--mode=train), or choose another --model_dir"
        )
    return model


def start_from(checkpoint: str, model: EncoderTrainer, *, has_new_classifier: bool = False) -> None:
    """Loads the weights of another run, or of the reference, into a model.

    A projection head that nothing reads may differ from the checkpoint's; it then keeps its weights, as one does in
    pretraining if the checkpoint has none. The classifier is loaded if it has as many classes as the checkpoint's, and
    reads as many features.

    Args:
      checkpoint: A run's folder, a folder of checkpoints, a checkpoint's prefix, or a SavedModel.
      model: Gets the weights.
      has_new_classifier: Whether to leave the model's classifier unchanged.

    Raises:
      FileNotFoundError: If the checkpoint does not exist.
      ValueError: If it does not fit the model; the error lists every variable that does not.
    """
    found = architecture.read_heads(checkpoint)
    head = model.projection_head
    may_be_new = not model.uses_head or (model.is_pretrained and not found["num_proj_layers"])
    own = architecture.settings_of_head([tuple(kernel.shape) for kernel in head.kernels])
    if may_be_new and any(found[name] != value for name, value in own.items()):
        logging.info("Starting with a new projection head (the checkpoint's has %d layers)", found["num_proj_layers"])
        head = None
    classifier = model.classifier
    kernel = architecture.read_classifier(checkpoint)
    if classifier is not None and (has_new_classifier or kernel != tuple(classifier.kernel.shape)):
        logging.info("Starting with a new classifier (the checkpoint's has %s classes)", found["num_classes"])
        classifier = None
    momentum = model if isinstance(model, MomentumSimCLR) else None
    weights.load_weights(checkpoint, model.encoder, head, classifier, momentum)
