"""Label efficiency: the accuracy against the number of labels, and what a label with this encoder is worth.

Source: Chen et al. (2020), Table 7, and Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised Learners"
(2020), figure 1, which draw it; the curves here have more points and several draws of the labels.
"""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging

from tf_simclr import files
from tf_simclr.data import sources
from tf_simclr.data.sources import can_be_learnt, subsets
from tf_simclr.evaluation.cache import CachedFeatures, remove_older
from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.scores import Protocol, settings_of
from tf_simclr.evaluation.verdict import keyed
from tf_simclr.runs.results import TITLES

# In the run's folder.
PICTURE = "label_efficiency.png"

PERCENTS = (1, 2, 5, 10, 25, 100)
DRAWS = 5


def draws_of(percent: int) -> range:
    """The draws of a share of the labels; all of them are one draw.

    >>> draws_of(10), draws_of(100)
    (range(0, 5), range(0, 1))
    """
    return range(1 if percent == 100 else DRAWS)


def check_trained(source: sources.Source) -> None:
    """Raises a `ValueError` if draws of the labels cannot be trained on; it costs hours to find out later."""
    if source.labels is None:
        raise ValueError(
            "--label_efficiency=trained takes images whose labels are known before they are read: put them into one "
            f"folder for each class, or use --label_efficiency=frozen. Received: a {type(source).__name__}"
        )


def percents_of(train: Features) -> list[int]:
    """The shares with which a classifier can be learnt: of few images, the smallest leave one to each class."""
    return [percent for percent in PERCENTS if can_be_learnt(take(train, percent, 0).labels)]


def take(train: Features, percent: int, draw: int) -> Features:
    """A draw of a share of the labels."""
    keys = range(len(train)) if train.keys is None else train.keys
    return train.take(subsets.class_balanced(map(str, keys), train.labels, percent / 100, draw))


def rows(
    series: str, percents: Sequence[int], accuracy: Callable[[int, int], tuple[float, int]]
) -> list[dict[str, Any]]:
    """One row for each share of the labels: the mean, smallest and largest accuracy over the draws.

    Args:
      series: A key of `results.TITLES`.
      percents: The shares.
      accuracy: From (percent, draw) to (top-1 accuracy, number of labels).
    """
    found = []
    for percent in percents:
        accuracies, labels = zip(*(accuracy(percent, draw) for draw in draws_of(percent)), strict=True)
        found.append(
            {
                "series": series,
                "title": TITLES[series],
                "fraction": percent / 100,
                "labels": labels[0],  # Every draw has as many: they follow from the sizes of the classes.
                "mean": float(np.mean(accuracies)),
                "low": min(accuracies),
                "high": max(accuracies),
                "draws": len(accuracies),
            }
        )
    return found


def rows_of_frozen(
    series: str, protocol: Protocol, train: CachedFeatures, test: CachedFeatures, folder: pathlib.Path
) -> list[dict[str, Any]]:
    """The rows of a protocol on a frozen encoder, kept in `folder` under a key of what they follow from."""
    settings = settings_of(protocol)
    origin = {"train": train.key, "test": test.key, "settings": settings}
    path = keyed(folder / f"label_efficiency_{series.replace('/', '_')}", origin, ".json")
    if not path.is_file():
        logging.info("Label efficiency: %s", TITLES[series])
        accuracy = functools.partial(_accuracy_of_frozen, protocol, train.features, test.features)
        found = [row | {"settings": settings} for row in rows(series, percents_of(train.features), accuracy)]
        files.write_json(path, found)
        remove_older(path)
    return files.read_json(path)


def _accuracy_of_frozen(
    protocol: Protocol, train: Features, test: Features, percent: int, draw: int
) -> tuple[float, int]:
    few = take(train, percent, draw)
    predicted = protocol(few, test.representations).predicted()
    return float(np.mean(predicted == test.labels)), len(few)


def draw(table: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """Writes a PNG file of the curves: means with bars from the worst to the best draw."""
    # Importing Matplotlib takes a second and writes a cache of its fonts.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    for series, title in TITLES.items():
        points = [row for row in table if row["series"] == series]
        if points:
            labels, means, lows, highs = (
                np.array([row[name] for row in points]) for name in ("labels", "mean", "low", "high")
            )
            bars = 100 * np.maximum([means - lows, highs - means], 0)
            axes.errorbar(labels, 100 * means, bars, marker="o", markersize=4, capsize=3, label=title)
    axes.set_xscale("log")
    ticks = sorted({row["labels"] for row in table})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("labels")
    axes.set_ylabel("top-1 accuracy on the test images, %")
    axes.grid(alpha=0.3)
    axes.legend()
    with files.replacing(path) as beside:
        figure.savefig(beside, dpi=120)
