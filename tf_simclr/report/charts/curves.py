"""Curves over a number, such as the loss over the steps."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from tf_simclr.data.files.names import printable
from tf_simclr.report.charts.axes import LEFT, LINE, RIGHT, TEXT, WIDTH, Scale, finite, scale, x_axis, y_axis
from tf_simclr.report.charts.markup import color, element, figure, legend, nothing, number, picture, table

_TOP, _BOTTOM = LINE + TEXT // 2, 228
_HEIGHT = _BOTTOM + 2 * LINE + 8
# Points of a curve that are drawn, and that are in the table.
_MAX_POINTS, _MAX_ROWS = 400, 50
# Curves of this many points show them as dots.
_MAX_DOTS = 30


class Series(NamedTuple):
    """A curve.

    Attributes:
      name: What it is; empty for the only one of a chart.
      x: [N], in ascending order.
      y: [N]; what is None, NaN or infinite is a gap.
      low: The lower end of a band around the curve, [N].
      high: The upper end.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None


def lines(
    title: str,
    series: Sequence[Series],
    x_title: str,
    y_title: str,
    *,
    percent: bool = False,
    log_x: bool = False,
    log_y: bool = False,
) -> Markup:
    """A chart of curves.

    Args:
      title: Of the figure.
      series: The curves.
      x_title: What x is, with its unit.
      y_title: What y is, with its unit.
      percent: Whether y is a share, shown as a percentage.
      log_x: Whether the axis of x is logarithmic; then what is not positive is a gap.
      log_y: The same of y.
    """
    places = [_is_shown(one, log_x, log_y) for one in series]
    if not any(shown.any() for shown in places):
        return nothing(title)
    x = scale(_joined(one.x for one in series), LEFT, WIDTH - RIGHT, to_ticks=False, is_log=log_x)
    bands = [band for one in series for band in (one.y, one.low, one.high) if band is not None]
    y = scale(_joined(bands), _BOTTOM, _TOP, is_log=log_y)
    drawn = [_draw(one, color(i), x, y, y_title, percent) for i, one in enumerate(series)]
    bands_below = [band for band, _ in drawn] + [curve for _, curve in drawn]
    axes = [y_axis(y, LEFT, WIDTH - RIGHT, y_title, percent=percent), x_axis(x, _TOP, _BOTTOM, x_title)]
    svg = picture(_summary(title, series, x_title, percent), WIDTH, _HEIGHT, *axes, *bands_below)
    gaps = sum(int((~np.isfinite(finite(one.y))).sum()) for one in series)
    note = element("p", f"Gaps: {gaps:,} values are missing or not finite.", class_="note") if gaps else ""
    names = [one.name if shown.any() else "" for one, shown in zip(series, places, strict=True)]
    return figure(title, legend(names), svg, note, _table(title, series, x_title, y_title, percent))


def thin(values: np.ndarray, count: int) -> np.ndarray:
    """The indices, ascending, of about `count` of the values, float [N], with all extremes, ends and gaps."""
    if len(values) <= count:
        return np.arange(len(values))
    kept = set()
    for part in np.array_split(np.arange(len(values)), count // 4):
        gaps = np.isnan(values[part])
        kept |= {int(part[0]), int(part[-1])}
        kept |= {int(part[np.argmax(gaps)])} if gaps.any() else set()
        if not gaps.all():
            kept |= {int(part[np.nanargmin(values[part])]), int(part[np.nanargmax(values[part])])}
    return np.array(sorted(kept))


def _is_shown(one: Series, log_x: bool, log_y: bool) -> np.ndarray:
    x, y = finite(one.x), finite(one.y)
    return ~np.isnan(x) & ~np.isnan(y) & ((x > 0) | (not log_x)) & ((y > 0) | (not log_y))


def _joined(parts: Iterable[Sequence[float | None]]) -> np.ndarray:
    return np.concatenate([finite(part) for part in parts])


def _draw(one: Series, colored: str, x: Scale, y: Scale, y_title: str, percent: bool) -> tuple[Markup, Markup]:
    """The band, which goes below all curves, and the curve with what shows on hover."""
    kept = thin(finite(one.y), _MAX_POINTS)
    across, up = x(finite(one.x)[kept]), y(finite(one.y)[kept])
    name = printable(one.name or y_title)
    curve = element("path", element("title", name), class_=f"curve {colored}", d=_path(across, up))
    few = len(kept) <= _MAX_DOTS
    dots = []
    for i in range(len(kept)) if few else _spread(len(kept)):
        if not np.isnan(across[i] + up[i]):
            said = f"{name}, {number(one.x[kept[i]])}: {number(one.y[kept[i]], percent=percent)}"
            at = {"cx": f"{across[i]:.1f}", "cy": f"{up[i]:.1f}", "r": 3 if few else 6}
            dots.append(element("circle", element("title", said), class_=f"dot {colored}" if few else "hover", **at))
    band = Markup("")
    if one.low is not None and one.high is not None:
        low, high = y(finite(one.low)[kept]), y(finite(one.high)[kept])
        band = element("path", class_=f"band {colored}", d=_band(across, low, high))
    return band, element("g", curve, *dots)


def _spread(count: int) -> list[int]:
    """At most `_MAX_ROWS` of so many places, evenly spread, with both ends."""
    return np.unique(np.linspace(0, count - 1, _MAX_ROWS).astype(int)).tolist()


def _runs(is_shown: np.ndarray) -> list[np.ndarray]:
    """The indices between gaps."""
    found = np.flatnonzero(is_shown)
    return [part for part in np.split(found, np.flatnonzero(np.diff(found) > 1) + 1) if len(part)]


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def _path(x: np.ndarray, y: np.ndarray) -> str:
    # A point alone is a line of no length, which its round ends make a dot.
    return "".join(f"M{_points(x[part], y[part])}" + "h0" * (len(part) == 1) for part in _runs(~np.isnan(x + y)))


def _band(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    parts = _runs(~np.isnan(x + low + high))
    return "".join(f"M{_points(x[part], low[part])}L{_points(x[part][::-1], high[part][::-1])}Z" for part in parts)


def _summary(title: str, series: Sequence[Series], x_title: str, percent: bool) -> str:
    lasts = []
    for one in series:
        known = np.flatnonzero(~np.isnan(finite(one.y)))
        if len(known):
            lasts.append(f"{printable(one.name)} {number(one.y[known[-1]], percent=percent)}".strip())
    return f"{printable(title)}, over {printable(x_title)}. At the end: {', '.join(lasts)}"


def _table(title: str, series: Sequence[Series], x_title: str, y_title: str, percent: bool) -> Markup:
    """The values of every x, or of some of them, by series."""
    columns = []
    for one in series:
        for end, values in (("", one.y), (", low", one.low), (", high", one.high)):
            if values is not None:
                columns.append((f"{one.name or y_title}{end}", dict(zip(one.x, values, strict=True))))
    every = sorted({x for one in series for x in one.x})
    shown = [every[i] for i in _spread(len(every))]
    rows = ([number(x), *(number(column.get(x), percent=percent) for _, column in columns)] for x in shown)
    note = f"{len(shown)} of {len(every):,} points" if len(shown) < len(every) else ""
    return table(title, [x_title, *(name for name, _ in columns)], rows, note)
