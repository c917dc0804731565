"""Known diseases of a contrastive pretraining, told from its own numbers.

Every rule is a threshold between runs that were made sick on purpose and healthy ones; docs/health.md has them. What is
found at one measurement may pass, so a finding holds at the last two.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Line = Mapping[str, Any]

# Views of different images are almost one point: their mean cosine.
_COLLAPSED_SIMILARITY = 0.95
# Share of the dimensions of the representation.
_DEAD_SHARE = 1 / 3
# The loss over its value for equal projections, and the entropy over that of candidates that count alike.
_LOUD_LOSS = 1.25
_EVEN_ENTROPY = 0.98
# Colour alone finds the other view of this share of the images, and of this share of those that the projections find.
_COLOR_ACCURACY = 0.2
_COLOR_SHARE = 0.5
# In training, the other view is found this much less often than among as many held-out images.
_MIN_HELD_OUT_ACCURACY = 0.3
_TRAINING_SHARE = 0.8
# The loss is compared in so many parts of the run, and has lost this share of what it had gained.
_PARTS = 10
_LOST_SHARE = 0.3
# Or it is not below this share of its value for equal projections, and the gradient is this share of the first one:
# steps that are too long make the weights large, and behind a normalisation, large weights have small gradients.
_STUCK_LOSS = 0.9
_FADED_GRADIENT = 0.1


class Finding(NamedTuple):
    """Something wrong with a run.

    Attributes:
      name: Of the disease.
      severity: "error" if the encoder cannot be good for anything, or "warning".
      sentence: What was found, with its numbers.
      advice: What to do about it.
    """

    name: str
    severity: Literal["error", "warning"]
    sentence: str
    advice: str


def diagnose(health: Sequence[Line], metrics: Sequence[Line]) -> list[Finding]:
    """What is wrong with a run, the worst first; nothing before the second measurement.

    Args:
      health: The lines of its health.jsonl. A rule is left out if an older version did not write what it needs.
      metrics: The lines of its metrics.jsonl.
    """
    if len(health) < 2:
        return []
    now, before = (_examine(lines, metrics) for lines in (health, health[:-1]))
    return [found for found, earlier in zip(now, before, strict=True) if found is not None and earlier is not None]


def _examine(health: Sequence[Line], metrics: Sequence[Line]) -> list[Finding | None]:
    """What each rule finds at the last measurement."""
    line = health[-1]
    past = [one for one in metrics if one["step"] <= line["step"]]
    found = [rule(line, past) for rule in _RULES]
    # What else is wrong with an encoder that has collapsed follows from that.
    return found if found[0] is None else [found[0], *[None] * (len(found) - 1)]


def _collapse(line: Line, _: Sequence[Line]) -> Finding | None:
    if line["negative_similarity"] <= _COLLAPSED_SIMILARITY:
        return None
    return Finding(
        "collapse",
        "error",
        f"The encoder has collapsed: projections of different images have a mean cosine similarity of "
        f"{line['negative_similarity']:.2f}.",
        "Lower the learning rate or the temperature, lengthen the warm-up, or make the views of an image less alike.",
    )


def _dead_dimensions(line: Line, _: Sequence[Line]) -> Finding | None:
    dead, dimensions = line["representation_dead_dimensions"], line["representation_dimensions"]
    if dead <= _DEAD_SHARE * dimensions:
        return None
    return Finding(
        "dead dimensions",
        "warning",
        f"{dead} of the {dimensions} dimensions of the representation are the same for all images.",
        "Lower the learning rate or lengthen the warm-up; if the run is otherwise well, a narrower encoder would do.",
    )


def _colors(line: Line, _: Sequence[Line]) -> Finding | None:
    by_color, found = line.get("color_top_1_accuracy", 0.0), line.get("contrastive_top_1_accuracy", 0.0)
    if by_color < _COLOR_ACCURACY or by_color < _COLOR_SHARE * found:
        return None
    return Finding(
        "colour",
        "warning",
        f"Colour alone matches the views of an image: the mean and spread of their channels find {by_color:.0%} of the "
        f"pairs, the projections {found:.0%}.",
        "Raise --color_jitter_strength, or turn more views grey (augmentation.grayscale_probability); otherwise, the "
        "encoder need not learn more than colour.",
    )


def _low_temperature(line: Line, metrics: Sequence[Line]) -> Finding | None:
    # Only a softmax can leave the gradient to a few candidates; a triplet loss has no temperature at all.
    if not metrics or "entropy_candidates" not in line or metrics[-1]["loss"] <= _LOUD_LOSS * _collapse_loss(line):
        return None
    return Finding(
        "temperature too low",
        "warning",
        f"The loss is {metrics[-1]['loss']:.2f}, far above {_collapse_loss(line):.2f}, its value if all projections "
        "were equal.",
        "Raise the temperature: a few of the most similar images make up the whole gradient. If it is 0.1 or higher, "
        "lower the learning rate.",
    )


def _high_temperature(line: Line, metrics: Sequence[Line]) -> Finding | None:
    entropy = metrics[-1].get("contrastive_entropy", 0.0) if metrics else 0.0
    most = math.log(line.get("entropy_candidates", math.inf))
    if entropy <= _EVEN_ENTROPY * most:
        return None
    return Finding(
        "temperature too high",
        "warning",
        f"All candidates count nearly the same: the entropy is {entropy:.2f} of at most {most:.2f}, although "
        f"different images have a mean cosine similarity of only {line['negative_similarity']:.2f}.",
        "Lower the temperature; values from 0.1 to 0.5 are usual.",
    )


def _duplicates(line: Line, metrics: Sequence[Line]) -> Finding | None:
    if line.get("num_small_views") or line.get("memory_size"):
        # In training, small views find their image less often than the views that are measured, and so do all views
        # among the candidates of a memory, which are not measured.
        return None
    held_out = line.get("contrastive_top_1_accuracy", 0.0)
    found = metrics[-1].get("contrastive_top_1_accuracy", held_out) if metrics else held_out
    if held_out < _MIN_HELD_OUT_ACCURACY or found > _TRAINING_SHARE * held_out:
        return None
    return Finding(
        "duplicates",
        "warning",
        f"In training, {found:.0%} of the views find their image, but {held_out:.0%} do among as many images that were "
        "not trained on: batches seem to hold the same image several times, and the loss pushes the copies apart.",
        "Look for duplicates with --mode=check, or take smaller batches.",
    )


def _learning_rate(line: Line, metrics: Sequence[Line]) -> Finding | None:
    if len(metrics) < 2 * _PARTS:
        return None
    losses = _parts([one["loss"] for one in metrics])
    gained, lost = losses[0] - min(losses), losses[-1] - min(losses)
    gradients = [one["gradient_norm"] for one in metrics if "gradient_norm" in one]
    faded = _parts(gradients)[-1] / gradients[0] if gradients and gradients[0] > 0 else 1.0
    if lost > _LOST_SHARE * gained and lost > 0.01 * losses[0]:
        what = f"it had come down from {losses[0]:.2f} to {min(losses):.2f}, and is {losses[-1]:.2f} now"
    elif faded < _FADED_GRADIENT and losses[-1] > _STUCK_LOSS * _collapse_loss(line):
        what = (
            f"it is {losses[-1]:.2f}, no less than by chance, and the gradient is {faded:.0%} of what it was at first"
        )
    else:
        return None
    return Finding(
        "learning rate too high",
        "warning",
        f"The loss does not fall as it should: {what}.",
        "Lower --learning_rate, or lengthen the warm-up.",
    )


def _parts(values: Sequence[float]) -> list[float]:
    """The means of ten parts of a series."""
    return [float(np.mean(part)) for part in np.array_split(values, _PARTS)]


def _collapse_loss(line: Line) -> float:
    """The loss if all projections are equal; infinite if it has no such value, or an older version did not write it."""
    return line.get("collapse_loss", math.inf)


_RULES = (_collapse, _dead_dimensions, _colors, _low_temperature, _high_temperature, _duplicates, _learning_rate)
