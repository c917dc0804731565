"""Recognises the model that a weights file belongs to, and builds it."""

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

from tf_simclr.models.heads import ProjectionHead, linear_classifier
from tf_simclr.models.resnet import BOTTLENECK_EXPANSION, DEPTHS, GROUP_FILTERS, MIN_SELECTIVE_FILTERS, resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.runs.weights import CLASSIFIER, ENCODER, HEAD, Place, Shape, load_weights, open_weights


def load_reference(path: str | os.PathLike[str], *, classifier_layer: int = 0) -> SimCLR:
    """Builds the model of a weights file of the public SimCLR reference implementation, and loads its weights.

    Reads v1 and v2 of any depth and width, with or without selective kernels: TensorFlow 2 SavedModels, TensorFlow 2
    checkpoints and TensorFlow 1 checkpoints. Also reads the files of this package.

    The file does not state the image size, so it is 32 px for the CIFAR stem and 224 px for the others. The loss and
    the augmentation are the defaults of `SimCLR`.

    Args:
      path: What `find_checkpoint` takes.
      classifier_layer: What the file's classifier, if it has one, reads: 0 the representation, i the i-th layer of the
        projection head, -1 the last one. The file does not state it; the reference's `ft_proj_selector` does.

    Returns:
      The model. If the file has no projection head, the model's is the identity; if it has no classifier, the model's
      `online_classifier` is `None`.

    Raises:
      FileNotFoundError: If there is no weights file.
      ValueError: If the file does not hold a known ResNet.
    """
    found = read_architecture(path)
    num_layers, hidden_dim, output_dim = map(found.pop, ("num_proj_layers", "proj_hidden_dim", "proj_out_dim"))
    num_classes = found.pop("num_classes")
    model = SimCLR(
        resnet(found.pop("resnet_depth"), **found),
        ProjectionHead(num_layers, output_dim, hidden_dim=hidden_dim),
        image_size=32 if found["stem"] == "cifar" else 224,
        online_classifier=None if num_classes is None else linear_classifier(num_classes),
        classifier_layer=classifier_layer,
    )
    load_weights(path, model.encoder, model.projection_head, model.online_classifier)
    return model


def read_architecture(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Infers the settings of a model from the shapes of its kernels in a weights file.

    Shapes do not distinguish a "strided" stem, which only this package has, from "cifar", which is returned. Nor do
    they show whether basic blocks behind a "cifar" stem have the shortcuts of ResNet-D.

    Args:
      path: What `find_checkpoint` takes.

    Returns:
      resnet_depth, width_multiplier, stem, num_groups, sk_ratio, se_ratio and final_width of `resnet`; num_proj_layers,
      proj_hidden_dim and proj_out_dim of `ProjectionHead` (see `settings_of_head`); and num_classes, `None` without a
      classifier.

    Raises:
      FileNotFoundError: If there is no weights file.
      ValueError: If the file does not hold a known ResNet.
    """
    return _encoder_architecture(os.fspath(path), _read_shapes(path)) | read_heads(path)


def read_heads(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Infers the settings of the heads, on any encoder, from the shapes of the kernels in a weights file.

    Args:
      path: What `find_checkpoint` takes.

    Returns:
      What `settings_of_head` returns, and num_classes, `None` without a classifier.

    Raises:
      FileNotFoundError: If there is no weights file.
    """
    shapes = _read_shapes(path)
    classifier = _classifier(shapes)
    head = settings_of_head(list(_kernels(shapes, HEAD, "dense").values()))
    return head | {"num_classes": None if classifier is None else classifier[1]}


def read_classifier(path: str | os.PathLike[str]) -> Shape | None:
    """The shape of the classifier's kernel in a weights file, (features, classes); `None` without a classifier.

    Args:
      path: What `find_checkpoint` takes.

    Raises:
      FileNotFoundError: If there is no weights file.
    """
    return _classifier(_read_shapes(path))


def _classifier(shapes: dict[Place, Shape]) -> Shape | None:
    return next(reversed(_kernels(shapes, CLASSIFIER, "dense").values()), None)


def settings_of_head(kernels: Sequence[Shape]) -> dict[str, int | None]:
    """The settings of a projection head, from the shapes (in, out) of its kernels.

    >>> settings_of_head([(512, 512), (512, 128)])
    {'num_proj_layers': 2, 'proj_hidden_dim': None, 'proj_out_dim': 128}
    >>> settings_of_head([(512, 2048), (2048, 128)])
    {'num_proj_layers': 2, 'proj_hidden_dim': 2048, 'proj_out_dim': 128}
    >>> settings_of_head([])
    {'num_proj_layers': 0, 'proj_hidden_dim': None, 'proj_out_dim': 128}
    """
    width, hidden = kernels[0] if len(kernels) > 1 else (None, None)
    return {
        "num_proj_layers": len(kernels),
        "proj_hidden_dim": None if hidden == width else hidden,
        "proj_out_dim": kernels[-1][-1] if kernels else 128,
    }


def _read_shapes(path: str | os.PathLike[str]) -> dict[Place, Shape]:
    return {place: stored.shape for place, stored in sorted(open_weights(path)[1].items())}


def _kernels(shapes: dict[Place, Shape], part: str, kind: str) -> dict[int, Shape]:
    """Shapes of the kernels of one kind of layer, by number."""
    return {place[2]: shape for place, shape in shapes.items() if (*place[:2], place[3]) == (part, kind, "kernel")}


def _encoder_architecture(path: str, shapes: dict[Place, Shape]) -> dict[str, Any]:
    kernels = _kernels(shapes, ENCODER, "conv2d")
    # Only the convolutions of squeeze and excitation, two to a block, have biases.
    biased = [index for index in kernels if (ENCODER, "conv2d", index, "bias") in shapes]
    plain = [shape for index, shape in kernels.items() if index not in biased]
    stem_length = next((index for index, shape in enumerate(plain) if shape[0] == 1), 0)
    stem, blocks = plain[:stem_length], plain[stem_length:]
    spatial = [index for index, shape in enumerate(blocks) if shape[0] == 3]
    # Blocks begin with a 1x1 shortcut.
    is_bottleneck = bool(blocks) and blocks[0][3] == BOTTLENECK_EXPANSION * blocks[0][2]
    widths = [blocks[index][2] for index in spatial] if is_bottleneck else [blocks[index][3] for index in spatial[1::2]]
    filters = [width for width, _ in itertools.groupby(widths)]
    counts = tuple(len(list(group)) for _, group in itertools.groupby(widths))
    depths = [
        depth for depth, (known, wide) in DEPTHS.items() if (known[: len(counts)], wide) == (counts, is_bottleneck)
    ]
    if not stem or not counts or not depths:
        raise ValueError(f"Cannot recognise a ResNet with groups of {list(counts)} blocks. Received: {path}")

    # Basic blocks have no selective kernels: only the stem shows whether there is a ratio, and any value will do.
    sk_ratio = 1 / 16 if len(stem) > 1 else None
    if is_bottleneck and blocks[spatial[0]][3] == 2 * widths[0]:
        # One convolution computes both streams; the mixing layer follows.
        mixing = [after[3] for kernel, after in itertools.pairwise(blocks) if kernel[0] == 3]
        sk_ratio = _factor(widths, mixing, lambda size: max(int(size), MIN_SELECTIVE_FILTERS))
    squeezed = [kernels[index][3] for index in biased[::2]]
    # Behind the last 3x3 convolution, a bottleneck has one more, and two more that mix the streams.
    num_last = (3 if sk_ratio else 1) if is_bottleneck else 0
    has_final = len(blocks) - 1 - spatial[-1] > num_last
    return {
        "resnet_depth": depths[0],
        "width_multiplier": _factor(GROUP_FILTERS, filters, lambda size: max(round(size), 1)),
        "stem": "imagenet" if len(stem) > 1 or stem[0][0] == 7 else "cifar",
        "num_groups": len(counts),
        "sk_ratio": sk_ratio,
        "se_ratio": _factor(widths, squeezed, lambda size: max(int(size), 1)) if squeezed else None,
        "final_width": blocks[-1][3] if has_final else None,
    }


def _factor(bases: Sequence[int], counts: list[int], size: Callable[[float], int]) -> float:
    """A factor that turns bases into counts: a common one if it fits, or else near the middle of those that do."""
    pairs = list(zip(bases, counts, strict=False))
    low, high = max((count - 0.5) / base for base, count in pairs), min((count + 0.5) / base for base, count in pairs)
    middle = (low + high) / 2
    candidates = (1 / 16, 1 / 4, *(count / base for base, count in pairs), middle, (counts[-1] + 0.5) / pairs[-1][0])
    return next((factor for factor in candidates if all(size(factor * base) == count for base, count in pairs)), middle)
