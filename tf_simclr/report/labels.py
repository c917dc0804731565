"""What the labels say beyond the accuracies: which classes are taken for which, and what a label is worth."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from tf_simclr.data.files.names import printable
from tf_simclr.metrics.confusion import most_frequent
from tf_simclr.report import charts
from tf_simclr.report.folder import Run
from tf_simclr.runs.results import worth_of_labels

_MISTAKES = 5


class Mistake(NamedTuple):
    """How many times images of a class are taken for another."""

    label: str
    predicted: str
    times: int


class Confusions(NamedTuple):
    """The confusion matrix of a protocol, and its most frequent mistakes."""

    protocol: str
    chart: Markup
    mistakes: Sequence[Mistake]


class Efficiency(NamedTuple):
    """The accuracy against the number of labels."""

    chart: Markup
    sentence: str


def confusions(run: Run) -> Confusions | None:
    """The matrix of the protocol that the result names, or else of the last one; None if there is none."""
    if not run.confusions:
        return None
    named: str = (run.result.get("confusions") or {}).get("protocol", "")
    protocol = named if named in run.confusions else list(run.confusions)[-1]
    counts = run.confusions[protocol]
    has_names = len(run.class_names) == len(counts)
    names = list(run.class_names) if has_names else [str(number) for number in range(len(counts))]
    title = printable(run.result.get("protocols", {}).get(protocol, {}).get("title", protocol))
    mistakes = [Mistake(names[one], names[other], times) for one, other, times in most_frequent(counts, _MISTAKES)]
    return Confusions(title, charts.matrix(f"Confusion matrix, {title}", counts, names), mistakes)


def efficiency(rows: Sequence[Mapping[str, Any]]) -> Efficiency | None:
    """The rows under `label_efficiency` in the result; None if there are none."""
    if not rows:
        return None
    series = []
    for name in dict.fromkeys(row["series"] for row in rows):
        points = [row for row in rows if row["series"] == name]
        columns = ([row[key] for row in points] for key in ("labels", "mean", "low", "high"))
        series.append(charts.Series(printable(points[0]["title"]), *columns))
    title = "Accuracy on the test images with few labels"
    chart = charts.lines(title, series, "labels", "top-1 accuracy", percent=True, log_x=True)
    return Efficiency(chart, worth_of_labels([dict(row) for row in rows]))
