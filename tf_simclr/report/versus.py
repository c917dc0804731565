"""Runs against the first of them, image by image: which can be compared, the differences, and their charts."""

import collections
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from tf_simclr import compare
from tf_simclr.data.files.names import printable
from tf_simclr.report import charts
from tf_simclr.runs.results import LABEL, OWN_ROW


class Judged(NamedTuple):
    """A run that has been evaluated on labelled images.

    Attributes:
      name: The run.
      evaluation: What its last evaluation has kept.
      result: Its `result.json`.
    """

    name: str
    evaluation: compare.Evaluation
    result: Mapping[str, Any]

    def title(self, protocol: str) -> str:
        """What a protocol is called, printable."""
        return printable(self.evaluation.title(protocol))


class Comparison(NamedTuple):
    """A run minus the first one, by one protocol."""

    name: str
    protocol: str
    title: str
    num_images: int
    difference: compare.Difference
    sentence: str


@dataclasses.dataclass(frozen=True, eq=False)
class Versus:
    """Runs against the first of them.

    Attributes:
      first: The run that the others are compared with.
      others: Those that can be.
      left_out: The names of those that cannot, by the reason.
    """

    first: Judged
    others: Sequence[Judged]
    left_out: Mapping[str, Sequence[str]]

    @functools.cached_property
    def comparisons(self) -> list[Comparison]:
        """By run, and by protocol."""
        return [one for other in self.others for one in self._compare(other)]

    def _compare(self, other: Judged) -> Iterator[Comparison]:
        for protocol in compare.common_protocols([self.first.evaluation, other.evaluation]):
            found = compare.differ(protocol, other.evaluation, self.first.evaluation)
            count = len(self.first.evaluation.predictions[protocol].labels)
            sentence = found.sentence(other.name, self.first.name)
            yield Comparison(other.name, protocol, self.first.title(protocol), count, found, sentence)

    @property
    def main(self) -> list[Comparison]:
        """Those by the protocol that says most: the last one that judges frozen encoders, or else the last one."""
        protocols = list(dict.fromkeys(one.protocol for one in self.comparisons))
        settings = self.first.evaluation.settings
        frozen = [name for name in protocols if name != LABEL and OWN_ROW not in settings.get(name, {})]
        return [one for one in self.comparisons if one.protocol == (frozen or protocols)[-1]]

    def charts(self) -> list[Markup]:
        """For each protocol, the accuracies, and the differences in points; a row is the same run in all of them."""
        return [*self._accuracies(), *self._differences()] if self.others else []

    def _accuracies(self) -> Iterator[Markup]:
        for protocol in self.first.evaluation.predictions:
            rows = [_accuracy(one, protocol) for one in (self.first, *self.others)]
            yield charts.intervals(f"Top-1 accuracy, {self.first.title(protocol)}", rows, percent=True)

    def _differences(self) -> Iterator[Markup]:
        for protocol in dict.fromkeys(one.protocol for one in self.comparisons):
            known = {one.name: one.difference for one in self.comparisons if one.protocol == protocol}
            rows = [charts.Row(self.first.name, None, 0.0, None)]
            rows += [_points(other.name, known.get(other.name)) for other in self.others]
            yield charts.intervals(f"Points from {self.first.name}, {self.first.title(protocol)}", rows)

    def cautions(self) -> Iterator[str]:
        """What the differences cannot tell."""
        if not self.others:
            return
        yield (
            "The differences are those of these weights on images like these. Another seed of pretraining may change "
            "an accuracy by more: for claims about settings, compare several runs a side with "
            "python -m tf_simclr.compare."
        )
        if len(self.others) > 2:
            yield f"Of {len(self.others)} comparisons, chance alone makes about one in 20 look like a difference."
        named = [one.evaluation._replace(folder=one.name) for one in (self.first, *self.others)]
        for protocol in compare.common_protocols(named):
            yield from map(printable, compare.describe_settings(protocol, named))


def sort_out(judged: Sequence[Judged]) -> Versus | None:
    """Which runs can be compared with the first one; None if there is none."""
    if not judged:
        return None
    first, others = judged[0], []
    left_out = collections.defaultdict(list)
    for one in judged[1:]:
        if not compare.are_on_same_images(first.evaluation, one.evaluation):
            left_out[f"other test images than those of {first.name}"].append(one.name)
        elif not compare.common_protocols([first.evaluation, one.evaluation]):
            left_out[f"no protocol in common with {first.name}"].append(one.name)
        else:
            others.append(one)
    return Versus(first, others, left_out)


def _accuracy(one: Judged, protocol: str) -> charts.Row:
    """The accuracy of a run, with its interval if `result.json` is of the same evaluation."""
    if protocol not in one.evaluation.predictions:
        return charts.Row(one.name, None, None, None)
    value, key = float(one.evaluation.hits(protocol).mean()), f"eval/{protocol}_top_1_accuracy"
    low, known, high = (one.result.get(f"{key}{end}") for end in ("_low", "", "_high"))
    is_known = all(isinstance(end, float) for end in (low, known, high)) and abs(known - value) < 1e-6  # type: ignore[operator]
    return charts.Row(one.name, low, value, high) if is_known else charts.Row(one.name, None, value, None)


def _points(name: str, difference: compare.Difference | None) -> charts.Row:
    if difference is None:
        return charts.Row(name, None, None, None)
    low, high = difference.interval
    return charts.Row(name, *(round(100 * end, 1) for end in (low, difference.value, high)))
