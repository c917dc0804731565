"""What must hold for the evaluation of a run, looked at before the training instead of after it."""

from collections.abc import Iterator

import tensorflow as tf

from tf_simclr import builders, devices, distribute
from tf_simclr.data import sources
from tf_simclr.evaluation import cache, label_efficiency
from tf_simclr.evaluation.protocols import PROTOCOLS, Linear
from tf_simclr.evaluation.protocols.linear import HELD_OUT_FRACTION
from tf_simclr.evaluation.regression import bytes_of_fit
from tf_simclr.evaluation.tuned import TUNED, Finetune, few_labels
from tf_simclr.settings import RunConfig, check_name

# Of fewer classes, an encoder's representations cost little, and it need not be built to know how wide they are.
_FEW_CLASSES = 1000


def check(
    config: RunConfig, images: builders.Sources, strategy: tf.distribute.Strategy, *, width: int | None = None
) -> None:
    """Raises what would stop the evaluation of a run once its training is over.

    Args:
      config: The run.
      images: Its images.
      strategy: That of the run; of several machines, the first one evaluates alone, on one device.
      width: Number of features of the encoder, if it is built.

    Raises:
      FileNotFoundError: If a share of the labels is a data set of its own, and is missing.
      ValueError: If there is no such protocol, the labels do not allow what is asked for, or the memory is too small.
    """
    settings = config.eval
    for name in settings.protocols:
        check_name("eval.protocols", name, (*PROTOCOLS, *TUNED))
    num_classes = images.probe.num_classes
    if num_classes is None or images.test.num_classes is None:
        return
    source = cache.labelled("train", images.probe, num_classes).source
    # The others are judged by the classifier that they train.
    is_distilled = config.train_mode == "distill" and config.distill.target == "representations"
    is_pretrained = config.train_mode == "pretrain" or is_distilled
    if is_pretrained:
        num_replicas = 1 if distribute.has_workers(strategy) else strategy.num_replicas_in_sync
        for protocol in _trainings(config, source):
            protocol.check(source, num_replicas)
    is_fitted = any(isinstance(PROTOCOLS[name](config), Linear) for name in settings.protocols if name in PROTOCOLS)
    if is_fitted and settings.baselines:
        _check_memory(3 * config.data.image_size**2, source, num_classes, "leave raw pixels out (eval.baselines)")
    is_fitted_again = is_pretrained and settings.label_efficiency != "off"
    if num_classes > _FEW_CLASSES and (is_fitted and (is_pretrained or settings.compare_encoders) or is_fitted_again):
        width = width or builders.build_encoder(config).output_shape[-1]
        remedy = "use --eval_protocols=knn" + (" and --label_efficiency=off" if is_fitted_again else "")
        _check_memory(width, source, num_classes, f"{remedy} or, if these are no classes, --use_labels=False")


def _trainings(config: RunConfig, source: sources.Source) -> Iterator[Finetune]:
    """The protocols that train, and the first draw of every share of the labels that label efficiency trains on."""
    yield from (TUNED[name](config) for name in config.eval.protocols if name in TUNED)
    if config.eval.label_efficiency == "trained":
        label_efficiency.check_trained(source)
        for percent in label_efficiency.PERCENTS:
            protocol = few_labels(config, percent, is_pretrained=True)
            labels = protocol.labelled(source).labels
            if labels is not None and sources.can_be_learnt(labels):
                yield protocol


def _check_memory(width: int, source: sources.Source, num_classes: int, remedy: str) -> None:
    """Raises a `ValueError` if the linear classifier of so many features does not fit into the memory."""
    logits = 4 * HELD_OUT_FRACTION * source.num_examples * num_classes  # float32
    needed = bytes_of_fit(width, num_classes) + logits
    if needed > (memory := devices.total_memory()):
        raise ValueError(
            f"The linear evaluation of {width:,} features and so many classes would need about "
            f"{needed / 2**30:,.1f} GiB of the {memory / 2**30:,.1f} here: {remedy}. "
            f"Received: {num_classes:,} classes of {source.num_examples:,} images"
        )
