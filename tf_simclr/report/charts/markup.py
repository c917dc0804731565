"""The parts of all charts: elements, the frame of a figure, its table and legend, and how numbers read."""

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from tf_simclr.data.files.names import printable

# Colours before they repeat, as classes `series-1` and so on.
NUM_COLORS = 20
# What a table shows for a number that is not there.
NOTHING = "–"
# Characters of a name that fit a line of a chart.
NAME_LENGTH = 28


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element whose children and attributes are escaped unless they are markup.

    Names of attributes lose the "_" at their end and have "-" for other ones; those of value None are left out.

    >>> element("text", "a < b", class_="tick", text_anchor="end", x=None)
    Markup('<text class="tick" text-anchor="end">a &lt; b</text>')
    """
    pairs = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    written = together(Markup(' {}="{}"').format(name, value) for name, value in pairs)
    return Markup("<{tag}{written}>{children}</{tag}>").format(tag=tag, written=written, children=together(children))


def together(parts: Iterable[object]) -> Markup:
    """The parts behind each other, escaped unless they are markup."""
    return Markup("").join(parts)  # type: ignore[arg-type]  # join escapes what it gets


def shorten(name: str, length: int = NAME_LENGTH) -> str:
    """The printable name, without its middle if it is too long.

    >>> shorten("a_long_name_of_a_run", 9)
    'a_lo…_run'
    """
    name = printable(name)
    start = length // 2
    return name if len(name) <= length else f"{name[:start]}…{name[start + 1 - length :]}"


def label(name: str, length: int = NAME_LENGTH, **attributes: object) -> Markup:
    """A name as <text>; a short form stands for a long one, which shows on hover."""
    shown, full = shorten(name, length), printable(name)
    return element("text", shown, *([element("title", full)] if shown != full else []), **attributes)


def color(number: int) -> str:
    """The class that colours a series, counted from 0."""
    return f"series-{number % NUM_COLORS + 1}"


def number(value: float | None, *, percent: bool = False) -> str:
    """A number as it reads in tables and on hover.

    >>> number(12345.6789), number(0.8731, percent=True), number(None), number(float("-inf"))
    ('12,346', '87.3%', '–', '-∞')
    """
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value:+.0f}".replace("inf", "∞").lstrip("+")
    if percent:
        return f"{value:.1%}"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:,.5g}"


def alike(values: Sequence[float | None], *, percent: bool = False) -> list[str]:
    """Numbers as `number` has them, but with the decimals of the one that has most.

    >>> alike([-5.25, 2.0, None])
    ['-5.25', '2.00', '–']
    """
    texts = [number(value, percent=percent) for value in values]
    if percent or any("e" in text for text in texts):
        return texts
    decimals = max(len(text.partition(".")[2]) for text in texts)
    is_finite = [value is not None and math.isfinite(value) for value in values]
    return [
        f"{value:,.{decimals}f}" if shown else text for value, text, shown in zip(values, texts, is_finite, strict=True)
    ]


def picture(summary: str, width: float, height: float, *children: object, kind: str = "") -> Markup:
    """The SVG of a chart; a screen reader says the summary in place of it."""
    box = f"0 0 {width:g} {height:g}"
    name = f"chart {kind}".strip()
    return element(
        "svg", *children, class_=name, viewBox=box, width=width, height=height, role="img", aria_label=summary
    )


def legend(names: Sequence[str]) -> Markup:
    """The colours of the series, without those that have no name; empty if none has."""
    if not any(names):
        return Markup("")
    keys = (
        element("li", element("span", class_=f"key {color(i)}", aria_hidden="true"), printable(name))
        for i, name in enumerate(names)
        if name
    )
    return element("ul", *keys, class_="legend")


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> Markup:
    """The numbers of a chart, folded; the first cell of a row names it."""
    head = element("tr", *(element("th", printable(one), scope="col") for one in heads))
    body = (
        element("tr", element("th", printable(first), scope="row"), *(element("td", printable(one)) for one in rest))
        for first, *rest in rows
    )
    content = element("table", element("thead", head), element("tbody", *body))
    return element("details", element("summary", "Table"), note and element("p", note), scrolled(title, content))


def scrolled(title: str, content: Markup) -> Markup:
    """What may be wider than the page, in a box that scrolls by touch, mouse and keyboard."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=printable(title))


def figure(title: str, *children: object) -> Markup:
    """The frame of a chart."""
    return element("figure", element("figcaption", printable(title)), *children, class_="chart-frame")


def nothing(title: str, sentence: str = "There are no values yet.") -> Markup:
    """What stands for a chart that has nothing to show."""
    return figure(title, element("p", sentence, class_="note"))
