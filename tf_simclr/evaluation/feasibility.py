"""What must hold for the evaluation of a run, looked at before the training instead of after it."""

import os
from collections.abc import Iterator

from tf_simclr import builders, devices
from tf_simclr.data import sources
from tf_simclr.evaluation import cache, label_efficiency
from tf_simclr.evaluation.protocols import PROTOCOLS, Linear
from tf_simclr.evaluation.tuned import TUNED, Finetune, few_labels
from tf_simclr.settings import RunConfig, check_name

# Copies of the float64 weights that fitting a linear classifier holds: ten past steps and gradients of L-BFGS, those of
# the line search, and the sums of the threads. Of 20,000 classes, two threads held 23 in all.
_WEIGHTS_HELD, _WEIGHTS_HELD_BY_A_THREAD, _MOST_THREADS = 24, 2, 16
# Share of the images whose logits are held, in float32.
_HELD_OUT_FRACTION = 0.1
# Of fewer classes, all of that is little, and the encoder need not be built to know how wide its representation is.
_FEW_CLASSES = 1000


def check(config: RunConfig, images: builders.Sources, num_replicas: int) -> None:
    """Raises what would stop the evaluation of a run once its training is over.

    Args:
      config: The run.
      images: Its images.
      num_replicas: How many devices will evaluate.

    Raises:
      FileNotFoundError: If a share of the labels is a data set of its own, and is missing.
      ValueError: If there is no such protocol, the labels do not allow what is asked for, or the memory is too small.
    """
    for name in config.eval.protocols:
        check_name("eval.protocols", name, (*PROTOCOLS, *TUNED))
    num_classes = images.probe.num_classes
    if num_classes is None or images.test.num_classes is None:
        return
    source = cache.labelled("train", images.probe, num_classes).source
    for protocol in _trainings(config, source):
        protocol.check(source, num_replicas)
    frozen = [PROTOCOLS[name](config) for name in config.eval.protocols if name in PROTOCOLS]
    is_fitted = config.eval.label_efficiency != "off" or any(isinstance(protocol, Linear) for protocol in frozen)
    if is_fitted and num_classes > _FEW_CLASSES:
        _check_memory(config, num_classes, source.num_examples)


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


def _check_memory(config: RunConfig, num_classes: int, num_examples: int) -> None:
    width = builders.build_encoder(config).output_shape[-1]
    held = _WEIGHTS_HELD + _WEIGHTS_HELD_BY_A_THREAD * min(os.cpu_count() or 1, _MOST_THREADS)
    needed = 8 * held * num_classes * (width + 1) + 4 * _HELD_OUT_FRACTION * num_examples * num_classes
    if needed > (memory := devices.total_memory()):
        raise ValueError(
            f"The linear evaluation of so many classes would need about {needed / 2**30:,.0f} GiB of the "
            f"{memory / 2**30:,.0f} here: use --eval_protocols=knn or, if these are no classes, --use_labels=False. "
            f"Received: {num_classes:,} classes of {num_examples:,} images"
        )
