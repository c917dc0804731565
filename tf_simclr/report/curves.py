"""Charts over the course of a training: of the metrics, of the speed, and of the health of the representation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from tf_simclr.report import charts
from tf_simclr.report.folder import is_number

Lines = Sequence[Mapping[str, Any]]


class Chart(NamedTuple):
    """A chart over the training.

    Attributes:
      title: Its title.
      y_title: What it shows, with its unit.
      keys: The values in the lines of a file, with the name of each series.
      percent: Whether they are shares.
    """

    title: str
    y_title: str
    keys: Mapping[str, str]
    percent: bool = False


_METRICS = (
    Chart("Loss", "loss", {"loss": "loss"}),
    Chart(
        "Accuracy in the training batch",
        "top-1 accuracy",
        {
            "contrastive_top_1_accuracy": "finds the other view",
            "classifier_top_1_accuracy": "online classifier",
            "top_1_accuracy": "classifier",
        },
        percent=True,
    ),
    Chart("Learning rate", "learning rate", {"learning_rate": "learning rate"}),
)
_SPEED = (Chart("Speed", "images per second", {"images_per_second": "images per second"}),)
_REPRESENTATION, _PROJECTION = "representation h", "projection z"
_HEALTH = (
    Chart(
        "Cosine similarity of projections",
        "mean similarity",
        {"positive_similarity": "views of one image", "negative_similarity": "views of different images"},
    ),
    Chart(
        "Views that find the other view of their image",
        "top-1 accuracy, held out",
        {"contrastive_top_1_accuracy": "by their projections", "color_top_1_accuracy": "by colour alone"},
        percent=True,
    ),
    Chart("Alignment", "alignment, lower is closer", {"alignment": "alignment"}),
    Chart("Uniformity", "uniformity, lower is more even", {"uniformity": "uniformity"}),
    Chart(
        "Effective rank",
        "effective rank",
        {"representation_effective_rank": _REPRESENTATION, "projection_effective_rank": _PROJECTION},
    ),
    Chart("RankMe", "RankMe", {"representation_rankme": _REPRESENTATION, "projection_rankme": _PROJECTION}),
    Chart(
        "Standard deviation",
        "mean over the dimensions",
        {"representation_std": _REPRESENTATION, "projection_std": _PROJECTION},
    ),
    Chart(
        "Dead dimensions",
        "dimensions that never vary",
        {"representation_dead_dimensions": _REPRESENTATION, "projection_dead_dimensions": _PROJECTION},
    ),
    Chart("kNN accuracy while it trains", "top-1 accuracy", {"knn_top_1_accuracy": "kNN"}, percent=True),
)
_HISTOGRAMS = {
    "positive_similarity_histogram": "views of one image",
    "negative_similarity_histogram": "different images",
}


def of_metrics(metrics: Lines, speed: Lines) -> list[Markup]:
    """The charts of `metrics.jsonl` and `speed.jsonl`, without those that have no values."""
    return [*_draw(_METRICS, metrics), *_draw(_SPEED, speed)]


def of_health(health: Lines) -> list[Markup]:
    """The charts of `health.jsonl`, with the similarities of its first and its last line as histograms."""
    return [*_draw(_HEALTH, health), *_histograms(health)]


def _draw(wanted: Sequence[Chart], lines: Lines) -> Iterator[Markup]:
    x_name = "epoch" if all(is_number(line.get("epoch")) for line in lines) else "step"
    for chart in wanted:
        series = []
        for key, name in chart.keys.items():
            points = [(line[x_name], line[key]) for line in lines if is_number(line.get(key))]
            if points:
                x, y = zip(*points, strict=True)
                series.append(charts.Series(name, x, y))
        if series:
            yield charts.lines(chart.title, series, x_name, chart.y_title, percent=chart.percent)


def _histograms(health: Lines) -> Iterator[Markup]:
    lines = [line for line in health if all(isinstance(line.get(key), list) for key in _HISTOGRAMS)]
    for title, line in zip(
        ("at first", "at last"), (lines[:1] + lines[-1:]) if len(lines) > 1 else lines, strict=False
    ):
        edges = np.linspace(-1, 1, 1 + len(line[next(iter(_HISTOGRAMS))])).tolist()
        counts = {name: line[key] for key, name in _HISTOGRAMS.items()}
        yield charts.histograms(f"Similarities {title}, step {line['step']:,}", edges, counts)
