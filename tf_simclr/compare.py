"""Compares the evaluations of two runs, or of several runs a side.

    python -m tf_simclr.compare runs/a runs/b            # image by image
    python -m tf_simclr.compare 'runs/a_*' 'runs/b_*'    # over the seeds of pretraining

It reads the runs' folders alone: the predictions that the evaluation has kept, and which images they were made on.
"""

import argparse
import glob
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from tf_simclr import program
from tf_simclr.files import read_json
from tf_simclr.metrics import paired
from tf_simclr.metrics.intervals import LEVEL, Interval
from tf_simclr.runs.predictions import Predictions, predictions_path, read, read_images

# Differences with a larger p-value count as ties, as in the paper's tables.
SIGNIFICANT = 0.05
# What the settings of a protocol may differ in: its name, its draws, and what it chooses for an encoder.
_MAY_DIFFER = {"title", "seed", "chosen"}


class Evaluation(NamedTuple):
    """What a run's last evaluation has kept.

    Attributes:
      folder: The run.
      predictions: What was predicted for the test images, by protocol, such as "linear".
      settings: By protocol, those that decide its number.
      images: What identifies the test images; None if the run does not say.
    """

    folder: str
    predictions: dict[str, Predictions]
    settings: dict[str, dict[str, Any]]
    images: dict[str, Any] | None

    def hits(self, protocol: str) -> np.ndarray:
        """Whether each test image got its label, bool [M]."""
        return self.predictions[protocol].predicted == self.predictions[protocol].labels

    def title(self, protocol: str) -> str:
        """What reports call a protocol."""
        return self.settings.get(protocol, {}).get("title", protocol)


def load(folder: str) -> Evaluation:
    """Reads a run's last evaluation.

    Raises:
      FileNotFoundError: If the run has not been evaluated.
    """
    path = predictions_path(pathlib.Path(folder))
    if not path.is_file():
        raise FileNotFoundError(
            f"A run must have been evaluated: python run.py --mode=eval --model_dir={folder}. Received: {folder!r}"
        )
    by_place = {place.removeprefix("eval/"): found for place, found in read(path).items() if place.startswith("eval/")}
    result = pathlib.Path(folder, "result.json")
    settings = read_json(result).get("protocols", {}) if result.is_file() else {}
    return Evaluation(folder, by_place, settings, read_images(path))


def find(pattern: str) -> list[Evaluation]:
    """The evaluations of a run's folder, or of all runs that match a pattern, on the same test images.

    Raises:
      FileNotFoundError: If nothing matches, or a run has not been evaluated.
    """
    folders = [pattern] if os.path.isdir(pattern) else sorted(filter(os.path.isdir, glob.glob(pattern)))
    if not folders:
        raise FileNotFoundError(f"There is no run of this name or pattern. Received: {pattern!r}")
    once = {os.path.realpath(folder): folder for folder in reversed(folders)}  # A link may lead to a run of the list.
    return [load(folder) for folder in sorted(once.values())]


class Difference(NamedTuple):
    """How two evaluations on the same test images differ by one protocol.

    Attributes:
      first: The accuracy of the first one.
      second: That of the second one.
      interval: Of the first accuracy minus the second one; a paired bootstrap.
      p_value: Of the exact McNemar test.
    """

    first: float
    second: float
    interval: Interval
    p_value: float

    @property
    def value(self) -> float:
        """The first accuracy minus the second one."""
        return self.first - self.second

    def sentence(self, first: str, second: str) -> str:
        """Which of the two, by name, is better, if that can be told."""
        if self.p_value >= SIGNIFICANT:
            return "These test images do not tell which weights are better."
        return f"On images like these, the weights of {first if self.value > 0 else second} are better."


def differ(protocol: str, first: Evaluation, second: Evaluation) -> Difference:
    """The difference of two evaluations on the same test images by one protocol."""
    a, b = first.hits(protocol), second.hits(protocol)
    interval = paired.difference_interval(a, b)
    return Difference(float(a.mean()), float(b.mean()), interval, paired.mcnemar(a, b))


def common_protocols(evaluations: Sequence[Evaluation]) -> list[str]:
    """The protocols by which all of them were made, in the order of the first one."""
    return [name for name in evaluations[0].predictions if all(name in one.predictions for one in evaluations)]


def are_on_same_images(first: Evaluation, second: Evaluation) -> bool:
    """Whether two evaluations were made on the same test images, as far as is known."""
    are_known = first.images is not None and second.images is not None
    return _have_same_examples(first, second) and not (are_known and first.images != second.images)


def check_same_images(evaluations: Sequence[Evaluation]) -> None:
    """Raises a `ValueError` if two evaluations were not made on the same test images."""
    first = evaluations[0]
    for other in evaluations[1:]:
        if not are_on_same_images(first, other):
            raise ValueError(
                "Runs can be compared on the same test images alone: evaluate one of them on those of the other, with "
                f"--mode=eval --eval_data_dir. Received: {first.folder!r} and {other.folder!r}"
            )


def _have_same_examples(first: Evaluation, second: Evaluation) -> bool:
    """Whether two evaluations were made on images of the same names and labels, in the same order."""
    a, b = (next(iter(one.predictions.values()), None) for one in (first, second))
    if a is None or b is None:
        return True
    return np.array_equal(a.examples, b.examples) and np.array_equal(a.labels, b.labels)


def describe_pair(protocol: str, first: Evaluation, second: Evaluation) -> Iterator[str]:
    """Lines about two runs under one protocol."""
    found = differ(protocol, first, second)
    low, high = found.interval
    count = len(first.hits(protocol))
    yield f"{first.title(protocol)}, {count:,} test images: {found.first:.1%} and {found.second:.1%}"
    yield (
        f"  difference {100 * found.value:+.1f} points, {LEVEL:.0%} interval {100 * low:+.1f} to {100 * high:+.1f} "
        "(paired bootstrap)"
    )
    exchanged = paired.permutation_test(first.hits(protocol), second.hits(protocol))
    yield f"  p = {found.p_value:.3g} (exact McNemar test), {exchanged:.3g} (permutation test)"
    yield f"  {found.sentence(first.folder, second.folder)}"


def describe_groups(protocol: str, first: Sequence[Evaluation], second: Sequence[Evaluation]) -> Iterator[str]:
    """Lines about several runs a side under one protocol."""
    sides = [np.array([one.hits(protocol).mean() for one in side]) for side in (first, second)]
    for name, accuracies in zip(("first", "second"), sides, strict=True):
        spread = f", standard deviation {100 * accuracies.std(ddof=1):.1f} points" if len(accuracies) > 1 else ""
        shown = ", ".join(f"{accuracy:.1%}" for accuracy in accuracies)
        found = f"mean {accuracies.mean():.1%} of {len(accuracies)} runs ({shown}){spread}"
        yield f"{first[0].title(protocol)}, {name} side: {found}"
    difference = sides[0].mean() - sides[1].mean()
    if min(map(len, sides)) < 2:
        yield f"  difference {100 * difference:+.1f} points; an interval takes two runs a side"
        return
    if max(map(np.ptp, sides)) == 0:
        yield f"  difference {100 * difference:+.1f} points; an interval takes runs that differ on a side"
        return
    test = stats.ttest_ind(*sides, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    yield (
        f"  difference {100 * difference:+.1f} points, {LEVEL:.0%} interval {100 * low:+.1f} to {100 * high:+.1f}, "
        f"p = {test.pvalue:.3g} (Welch's t-test over the runs)"
    )


def describe_settings(protocol: str, evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """A line about each setting of a protocol that the evaluations do not have in common."""
    known = [one.settings.get(protocol, {}) for one in evaluations]
    for name in sorted(set().union(*known) - _MAY_DIFFER):
        values = [settings.get(name) for settings in known]
        if any(value != values[0] for value in values):
            shown = ", ".join(f"{value} in {one.folder}" for value, one in zip(values, evaluations, strict=True))
            yield f"Caution: {evaluations[0].title(protocol)} is not the same protocol everywhere: {name} is {shown}"


def compare(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> str:
    """The comparison as text for the terminal.

    Raises:
      ValueError: If the runs were evaluated on different test images, or by different protocols.
    """
    everyone = [*first, *second]
    check_same_images(everyone)
    common = common_protocols(everyone)
    if not common:
        raise ValueError(
            "Runs must have been judged by a common protocol. Received: "
            + "; ".join(f"{one.folder} by {', '.join(one.predictions)}" for one in everyone)
        )
    lines: list[str] = []
    if len(everyone) == 2:
        for protocol in common:
            lines += describe_pair(protocol, first[0], second[0])
        lines.append(
            "This is about these weights. Another seed of pretraining may change an accuracy by more: for claims about "
            "settings, compare several runs a side."
        )
    else:
        _check_apart(first, second)
        for protocol in common:
            lines += describe_groups(protocol, first, second)
    lines += [line for protocol in common for line in describe_settings(protocol, everyone)]
    return "\n".join(lines)


def _check_apart(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> None:
    """Raises a `ValueError` if a run is on both sides."""
    places = {os.path.realpath(one.folder) for one in second}
    if both := [one.folder for one in first if os.path.realpath(one.folder) in places]:
        raise ValueError(f"A run can be on one side only: narrow the patterns. Received: {', '.join(both)} on both")


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tf_simclr.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("first", help="folder of a run, or a pattern in quotes for several")
    parser.add_argument("second", help="folder of the run, or a pattern for the runs, to compare with")
    options = parser.parse_args(arguments)
    program.show("compare", lambda: compare(find(options.first), find(options.second)))


if __name__ == "__main__":
    main()
