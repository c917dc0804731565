"""The optimizer of a run, from its settings."""

from tf_simclr.keras import keras
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.optimizers import LARS, Muon
from tf_simclr.schedules import WarmupCosine, peak_learning_rate
from tf_simclr.settings import RunConfig


def build_optimizer(config: RunConfig, model: EncoderTrainer, num_examples: int) -> keras.optimizers.Optimizer:
    """The optimizer, already built, so that a checkpoint can be restored before the first step."""
    settings = config.optimizer
    batch_size = config.global_batch_size(num_examples)
    peak = peak_learning_rate(settings.base_learning_rate, batch_size, settings.learning_rate_scaling)
    schedule = WarmupCosine(peak, config.total_steps(num_examples), config.warmup_steps(num_examples))
    if settings.name == "lars":
        optimizer = LARS(schedule, settings.momentum, settings.weight_decay)
        # In a distillation, the gradient of the classifier grows with 1 / temperature, which adaptation takes out.
        if model.classifier is not None and config.train_mode != "distill":
            optimizer.exclude_from_adaptation(model.classifier.trainable_variables)
    elif settings.name == "momentum":
        optimizer = keras.optimizers.SGD(schedule, settings.momentum, nesterov=True, jit_compile=False)
    elif settings.name == "adam":
        optimizer = keras.optimizers.Adam(schedule, jit_compile=False)
    elif settings.name == "adamw":
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay, jit_compile=False)
    else:
        optimizer = Muon(schedule, settings.momentum, settings.weight_decay)
        if model.classifier is not None:
            optimizer.exclude_from_orthogonalization(model.classifier.trainable_variables)
    if settings.name in ("adamw", "muon"):
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if v.shape.rank <= 1])
    optimizer.build(model.trainable_variables)
    return optimizer
