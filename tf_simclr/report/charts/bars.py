"""Intervals side by side, and histograms over each other."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from tf_simclr.report.charts.axes import LEFT, LINE, RIGHT, TEXT, WIDTH, finite, scale, x_axis, y_axis
from tf_simclr.report.charts.markup import (
    alike,
    color,
    element,
    figure,
    label,
    legend,
    nothing,
    number,
    picture,
    printable,
    table,
)

# A row of intervals: its name, and below it the dot.
_ROW = 2 * LINE + 8
_MARGIN = 14
_TOP, _BOTTOM = LINE + TEXT // 2, 198


class Row(NamedTuple):
    """A value with its interval; what is None or NaN is not known."""

    name: str
    low: float | None
    value: float | None
    high: float | None


def intervals(title: str, rows: Sequence[Row], *, percent: bool = False) -> Markup:
    """A dot with whiskers for each row, on one axis; a line marks zero where the axis has it.

    Args:
      title: Of the figure.
      rows: From top to bottom.
      percent: Whether the values are shares, shown as percentages.
    """
    values = finite([row[1:] for row in rows]).reshape(-1, 3)
    if np.isnan(values).all():
        return nothing(title)
    x = scale(values, _MARGIN + 8, WIDTH - _MARGIN - 8)
    bottom = len(rows) * _ROW + 6
    parts = [x_axis(x, 0, bottom, "", percent=percent, grid=True)]
    if x.low < 0 < x.high:
        at = f"{float(x(0)):.1f}"
        parts.append(element("line", class_="zero", x1=at, x2=at, y1=0, y2=bottom))
    parts += [_interval(i, row, x(values[i]), percent) for i, row in enumerate(rows)]
    said = "; ".join(f"{printable(row.name)} {_said(row, percent)}" for row in rows)
    svg = picture(f"{printable(title)}. {said}", WIDTH, bottom + LINE + 8, *parts)
    cells = ([row.name, *(number(one, percent=percent) for one in (row.value, row.low, row.high))] for row in rows)
    return figure(title, svg, table(title, ["name", "value", "low", "high"], cells))


def _said(row: Row, percent: bool) -> str:
    value, low, high = alike([row.value, row.low, row.high], percent=percent)
    return value if row.low is None or row.high is None else f"{value} [{low.rstrip('%')}, {high.rstrip('%')}]"


def _interval(i: int, row: Row, places: np.ndarray, percent: bool) -> Markup:
    low, value, high = (f"{place:.1f}" for place in places.tolist())
    base, line = i * _ROW + LINE, i * _ROW + LINE + 14
    said = _said(row, percent)
    parts = [element("title", f"{printable(row.name)}: {said}")]
    parts.append(label(row.name, 46 - len(said), class_="name", x=2, y=base))
    parts.append(element("text", said, class_="value", x=WIDTH - 2, y=base, text_anchor="end"))
    if not np.isnan(places[[0, 2]]).any():
        ends = f"M{low} {line}H{high}M{low} {line - 5}v10M{high} {line - 5}v10"
        parts.append(element("path", class_=f"whisker {color(i)}", d=ends))
    if not np.isnan(places[1]):
        parts.append(element("circle", class_=f"dot {color(i)}", cx=value, cy=line, r=5))
    return element("g", *parts)


def histograms(title: str, edges: Sequence[float], series: Mapping[str, Sequence[float]]) -> Markup:
    """Histograms over each other; the height is the share of a series that falls into a bin.

    Args:
      title: Of the figure.
      edges: Ends of the bins, ascending, [B + 1].
      series: Counts by the name of what was counted, [B] each.
    """
    counts = {name: np.nan_to_num(finite(values)) for name, values in series.items()}
    shares = {name: values / max(values.sum(), 1) for name, values in counts.items()}
    if not any(values.any() for values in shares.values()):
        return nothing(title)
    x = scale(edges, LEFT, WIDTH - RIGHT, to_ticks=False)
    y = scale([0, *(values.max() for values in shares.values())], _BOTTOM, _TOP)
    axes = [y_axis(y, LEFT, WIDTH - RIGHT, "share", percent=True), x_axis(x, _TOP, _BOTTOM, "")]
    places = x(edges)
    bars = [_histogram(name, color(i), places, y(values)) for i, (name, values) in enumerate(shares.items())]
    peaks = [f"{printable(name)} most often at {_bin(edges, int(values.argmax()))}" for name, values in shares.items()]
    svg = picture(f"{printable(title)}: {'; '.join(peaks)}", WIDTH, _BOTTOM + LINE + 8, *axes, *bars)
    rows = (
        [_bin(edges, i), *(f"{number(counts[name][i])} ({shares[name][i]:.1%})" for name in counts)]
        for i in range(len(edges) - 1)
    )
    return figure(title, legend(list(series)), svg, table(title, ["from, to", *series], rows))


def _bin(edges: Sequence[float], i: int) -> str:
    return f"{number(round(edges[i], 9))} to {number(round(edges[i + 1], 9))}"


def _histogram(name: str, colored: str, x: np.ndarray, y: np.ndarray) -> Markup:
    steps = "".join(f"V{height:.1f}H{end:.1f}" for height, end in zip(y.tolist(), x[1:].tolist(), strict=True))
    outline = f"M{x[0]:.1f} {_BOTTOM}{steps}V{_BOTTOM}"
    return element("path", element("title", printable(name)), class_=f"histogram {colored}", d=outline)
