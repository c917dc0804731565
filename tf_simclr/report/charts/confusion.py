"""What was taken for what: a matrix of classes, or a table of the most frequent mistakes."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from tf_simclr.data.files.names import printable
from tf_simclr.report.charts.axes import LINE, TEXT
from tf_simclr.report.charts.markup import element, figure, label, nothing, number, picture, scrolled, table

_MAX_CLASSES = 30
_MAX_PAIRS = 20
# Cells of so few classes have their number in them.
_MAX_NUMBERED = 10
_NAME_LENGTH = 14
_SMALL, _LARGE = 19, 34
# About what a character takes.
_CHARACTER = 8.2
# More than this would hide the numbers.
_DARKEST = 0.8


def matrix(title: str, counts: Sequence[Sequence[int]] | np.ndarray, names: Sequence[str]) -> Markup:
    """How often images of each class were taken for which; of many classes, the most frequent mistakes.

    Args:
      title: Of the figure.
      counts: [C, C]; a row is the class that an image has, a column the one that it was taken for.
      names: Of the classes, [C].
    """
    found = np.asarray(counts)
    if not found.size or not found.any():
        return nothing(title)
    shares = found / np.maximum(found.sum(1, keepdims=True), 1)
    if len(names) > _MAX_CLASSES:
        return _mistakes(title, found, shares, names)
    svg = _picture(title, found, shares, names)
    rows = ([name, *map(number, row)] for name, row in zip(names, found.tolist(), strict=True))
    note = element(
        "p", "Rows: the class of the image. Columns: what it was taken for. Darker: a larger share of the row."
    )
    return figure(title, note, scrolled(title, svg), table(title, ["class", *names], rows))


def _picture(title: str, counts: np.ndarray, shares: np.ndarray, names: Sequence[str]) -> Markup:
    size = _LARGE if len(names) <= _MAX_NUMBERED else _SMALL
    left = 10 + _CHARACTER * min(_NAME_LENGTH, max(len(printable(name)) for name in names))
    bottom = size * len(names)
    ground = element("rect", class_="ground", x=f"{left:.1f}", y=0, width=bottom, height=bottom)
    parts = [ground, *(_cell(int(i), int(j), left, size, counts, shares, names) for i, j in np.argwhere(counts))]
    for i, name in enumerate(names):
        middle = size * (i + 0.5)
        y, x = f"{middle + TEXT / 3:.1f}", f"{left + middle + TEXT / 3:.1f}"
        parts.append(label(name, _NAME_LENGTH, class_="name", x=f"{left - 6:.1f}", y=y, text_anchor="end"))
        turned = f"translate({x} {bottom + 6}) rotate(-90)"
        parts.append(label(name, _NAME_LENGTH, class_="name", transform=turned, text_anchor="end"))
    right = [f"{printable(name)} {shares[i, i]:.0%}" for i, name in enumerate(names)]
    summary = f"{printable(title)}. Right: {', '.join(right)}"
    return picture(summary, round(left + bottom + 4), round(bottom + left + LINE / 2), *parts, kind="matrix")


def _cell(
    i: int, j: int, left: float, size: int, counts: np.ndarray, shares: np.ndarray, names: Sequence[str]
) -> Markup:
    count = int(counts[i, j])
    said = f"{printable(names[i])} taken for {printable(names[j])}: {count:,} ({shares[i, j]:.1%})"
    shade = f"{_DARKEST * shares[i, j]:.3f}"
    x, y = left + size * j, size * i
    kind = "cell right" if i == j else "cell"
    square = element("rect", class_=kind, x=f"{x:.1f}", y=y, width=size - 1, height=size - 1, fill_opacity=shade)
    parts = [element("title", said), square]
    if size == _LARGE:
        at = {"x": f"{x + (size - 1) / 2:.1f}", "y": f"{y + size / 2 + TEXT / 3:.1f}"}
        parts.append(element("text", _short(count), class_="count", text_anchor="middle", **at))
    return element("g", *parts)


def _short(count: int) -> str:
    """A count in the four characters that a cell has."""
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _mistakes(title: str, counts: np.ndarray, shares: np.ndarray, names: Sequence[str]) -> Markup:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_PAIRS]
    pairs = [divmod(int(one), len(names)) for one in order if wrong.flat[one]]
    if not pairs:
        return nothing(title, f"None of {counts.sum():,} images was taken for another class.")
    head = ("class", "taken for", "images", "share of the class")
    body = (
        element(
            "tr",
            element("th", printable(names[i]), scope="row"),
            element("td", printable(names[j])),
            element("td", number(int(counts[i, j])), class_="number"),
            element("td", f"{shares[i, j]:.1%}", class_="number"),
        )
        for i, j in pairs
    )
    heads = element("tr", *(element("th", one, scope="col") for one in head))
    content = element("table", element("thead", heads), element("tbody", *body))
    note = element("p", f"{len(names):,} classes are too many for a picture: these are the most frequent mistakes.")
    return figure(title, note, scrolled(title, content))
