"""From values to places in a picture: scales with their ticks, and the two axes of a chart."""

import dataclasses
import math
import re

import numpy as np
from markupsafe import Markup

from tf_simclr.data.files.names import printable
from tf_simclr.report.charts.markup import element, together

# Sizes in units of the picture, which is as wide as a phone and grows with its column. Text is 14 units tall: 11 px
# where the picture is 320 px wide.
WIDTH = 400
LEFT, RIGHT = 58, 12
TEXT, LINE = 14, 18
# Larger values would overflow on the way to a place.
_LARGEST = 1e150


def finite(values: object) -> np.ndarray:
    """The values as float64, with NaN for all that has no place in a picture."""
    numbers = np.array(values, np.float64)  # A None becomes NaN.
    return np.where(np.abs(numbers) < _LARGEST, numbers, np.nan)


@dataclasses.dataclass(frozen=True)
class Scale:
    """Where values of an axis go.

    Attributes:
      low: The value at `start`.
      high: The value at `end`.
      start: A place, in units of the picture.
      end: The other place.
      ticks: Values to mark, between the two.
      is_log: Whether the same ratio of values is the same distance.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    is_log: bool = False

    def __call__(self, values: object) -> np.ndarray:
        """The places of values, float64 of the same shape; NaN where there is none."""
        numbers, low, high = finite(values), self.low, self.high
        if self.is_log:
            numbers, low, high = np.log(np.where(numbers > 0, numbers, np.nan)), math.log(low), math.log(high)
        return self.start + (self.end - self.start) * (numbers - low) / (high - low)

    def texts(self, *, percent: bool = False) -> list[str]:
        """What the ticks are called, all with the same number of decimals unless the scale is logarithmic."""
        largest = max(map(abs, self.ticks))
        if self.is_log or (not percent and not 1e-3 <= largest < 1e4):
            return [_compact(tick, percent) for tick in self.ticks]
        values = [100 * tick if percent else tick for tick in self.ticks]
        error = 1e-6 * max(map(abs, values))
        decimals = next((n for n in range(7) if all(abs(round(one, n) - one) <= error for one in values)), 7)
        return [f"{value + 0.0:,.{decimals}f}{'%' if percent else ''}" for value in values]


def _compact(value: float, percent: bool) -> str:
    """A tick without regard to the others: "50k", "1e-5"."""
    if percent:
        return f"{100 * value:.4g}%"
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if max(1e4, size) <= abs(value) < 1e12:
            return f"{value / size:.4g}{unit}"
    return re.sub("e([-+])0+", r"e\1", f"{value:.4g}")


def scale(values: object, start: float, end: float, *, to_ticks: bool = True, is_log: bool = False) -> Scale:
    """A scale that shows all values that have a place, of which there must be one.

    Args:
      values: The values.
      start: The place of the lowest value.
      end: The place of the highest.
      to_ticks: Whether the scale starts and ends at a tick, rather than at the lowest and the highest value.
      is_log: Whether it is logarithmic; then values that are not positive have no place.
    """
    from matplotlib import ticker

    numbers = finite(values)
    numbers = numbers[numbers > 0] if is_log else numbers[~np.isnan(numbers)]
    low, high = float(numbers.min()), float(numbers.max())
    if is_log:
        if high <= low * (1 + 1e-9):
            low, high = low / 2, high * 2
        decades = math.log10(high / low)
        locator: ticker.Locator = ticker.LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,), numticks=6)
    else:
        if high - low <= 1e-9 * max(abs(low), abs(high)):
            pad = abs(low) / 10 or 1.0
            low, high = low - pad, high + pad
        locator = ticker.MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10])
    ticks = [float(tick) for tick in locator.tick_values(low, high)]
    if to_ticks and not is_log:
        low, high = min(low, ticks[0]), max(high, ticks[-1])
    slack = 1e-9 * (low if is_log else high - low)
    shown = tuple(tick for tick in ticks if low - slack <= tick <= high + slack)
    return Scale(low, high, start, end, shown or (low, high), is_log)


def x_axis(x: Scale, top: float, bottom: float, title: str, *, percent: bool = False, grid: bool = False) -> Markup:
    """The axis below the picture: its line, ticks and title; `grid` draws a line up from every tick."""
    parts = [element("line", class_="axis", x1=_place(x.start), x2=_place(x.end), y1=_place(bottom), y2=_place(bottom))]
    for place, text in zip(x(x.ticks).tolist(), x.texts(percent=percent), strict=True):
        up = top if grid else bottom + 4
        parts.append(
            element("line", class_="grid", x1=_place(place), x2=_place(place), y1=_place(up), y2=_place(bottom))
        )
        anchor = "end" if place > WIDTH - 20 else "middle"
        at = min(place, WIDTH - 2.0) if anchor == "end" else place
        parts.append(element("text", text, class_="tick", x=_place(at), y=_place(bottom + LINE), text_anchor=anchor))
    middle = (x.start + x.end) / 2
    parts.append(
        element(
            "text",
            printable(title),
            class_="title",
            x=_place(middle),
            y=_place(bottom + 2 * LINE),
            text_anchor="middle",
        )
    )
    return together(parts)


def y_axis(y: Scale, left: float, right: float, title: str, *, percent: bool = False) -> Markup:
    """The axis left of the picture: a line across at every tick, and the title above."""
    parts = [element("text", printable(title), class_="title", x=2, y=TEXT)] if title else []
    for place, text in zip(y(y.ticks).tolist(), y.texts(percent=percent), strict=True):
        parts.append(
            element("line", class_="grid", x1=_place(left), x2=_place(right), y1=_place(place), y2=_place(place))
        )
        at = {"x": _place(left - 6), "y": _place(place + 5)}
        parts.append(element("text", text, class_="tick", text_anchor="end", **at))
    return together(parts)


def _place(value: float) -> str:
    return f"{value:.1f}"
