"""Charts: the picture, read back from its XML, follows the numbers, and so does the table."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tf_simclr.report.charts import Row, Series, axes, curves, histograms, intervals, lines, matrix

HOSTILE = "</svg><script>alert(1)</script> \" ' & \x00\t\u202e\udce9"


def parse(markup) -> ElementTree.Element:
    """The figure as XML, after the checks that hold for every chart."""
    text = str(markup)
    text.encode()
    figure = ElementTree.fromstring(text)
    assert figure.tag == "figure" and figure[0].tag == "figcaption"
    for one in figure.iter():
        assert one.tag not in ("script", "style", "foreignObject"), text
        assert not [name for name in one.attrib if name in ("style", "id", "href") or name.startswith("on")], text
    return figure


def table(figure) -> tuple[list[str], list[list[str]]]:
    heads, *rows = (["".join(cell.itertext()) for cell in row] for row in figure.iter("tr"))
    return heads, rows


def with_class(figure, name: str) -> list[ElementTree.Element]:
    return [one for one in figure.iter() if name in one.get("class", "").split()]


def points(figure, name: str = "curve") -> list[np.ndarray]:
    """The points of each part of the curves, [N, 2]."""
    paths = "".join(one.get("d") for one in with_class(figure, name)).split("M")[1:]
    return [np.array(re.findall(r"([\d.]+) ([\d.]+)", path), float) for path in paths]


def ticks(figure, axis: str) -> dict[str, float]:
    """Where the ticks of an axis are, by their text; the line of a tick stands before its text."""
    along, across = ("x", "y") if axis == "x" else ("y", "x")
    marks = [one for one in figure.iter() if one.get("class") in ("grid", "tick")]
    pairs = [
        (line, text)
        for line, text in zip(marks[::2], marks[1::2], strict=True)
        if line.get(f"{across}1") != line.get(f"{across}2")
    ]
    return {text.text: float(line.get(f"{along}1")) for line, text in pairs}


def test_points_follow_the_ticks_of_both_axes_and_the_table_holds_the_numbers():
    figure = parse(lines("Loss", [Series("a", [0, 50, 100], [1.0, 4.0, 2.5])], "step", "loss"))
    (curve,) = points(figure)
    x, y = ticks(figure, "x"), ticks(figure, "y")
    np.testing.assert_allclose(curve[:, 0], [x["0"], (x["0"] + x["100"]) / 2, x["100"]], atol=0.1)
    assert x["0"] < x["100"] and y["1"] > y["4"]
    np.testing.assert_allclose(curve[:, 1], [y["1"], y["4"], (y["2"] + y["3"]) / 2], atol=0.1)
    assert table(figure) == (["step", "a"], [["0", "1"], ["50", "4"], ["100", "2.5"]])
    (svg,) = figure.iter("svg")
    assert svg.get("role") == "img" and svg.get("aria-label") == "Loss, over step. At the end: a 2.5"
    assert [one.text for dot in with_class(figure, "dot") for one in dot] == ["a, 0: 1", "a, 50: 4", "a, 100: 2.5"]


def test_a_logarithmic_axis_gives_each_decade_the_same_length():
    figure = parse(lines("Labels", [Series("", [1, 10, 100], [0.1, 1, 0.01])], "labels", "y", log_x=True, log_y=True))
    (curve,) = points(figure)
    assert np.diff(curve[:, 0])[0] == pytest.approx(np.diff(curve[:, 0])[1], abs=0.2)
    assert curve[0, 1] == pytest.approx((curve[1, 1] + curve[2, 1]) / 2, abs=0.1)
    values = [0, -1, 5, 50]
    figure = parse(lines("Labels", [Series("", [1, 2, 3, 4], values)], "labels", "y", log_y=True))
    assert [len(part) for part in points(figure)] == [2]  # What has no logarithm is a gap, but in the table.
    assert [row[1] for row in table(figure)[1]] == ["0", "-1", "5", "50"]


def test_what_is_missing_or_not_finite_is_a_gap_that_is_said():
    values = [1.0, 2.0, None, 3.0, float("nan"), float("inf"), 1e200, 2.0, 2.5]
    figure = parse(lines("Loss", [Series("", list(range(9)), values)], "step", "loss"))
    assert [len(part) for part in points(figure)] == [2, 1, 2]
    assert "Gaps: 4 values" in "".join(figure.itertext())
    assert [row[1] for row in table(figure)[1]] == ["1", "2", "–", "3", "NaN", "∞", "1e+200", "2", "2.5"]


@pytest.mark.parametrize("values", [[], [None], [float("nan"), float("inf")]])
def test_a_chart_of_nothing_is_a_sentence(values):
    nothing = [
        lines("Loss", [Series("", list(range(len(values))), values)], "step", "loss"),
        intervals("Accuracy", [Row("a", None, value, None) for value in values]),
        histograms("Similarity", [0, 1], {"a": [0]}),
        matrix("Confusions", np.zeros([len(values)] * 2, int), ["a"] * len(values)),
    ]
    for figure in map(parse, nothing):
        assert not list(figure.iter("svg")) and figure[1].text == "There are no values yet."


def test_a_series_without_values_keeps_its_colour_from_the_others_and_out_of_the_legend():
    series = [Series(name, x, y) for name, x, y in (("a", [1], [2.0]), ("b", [], []), ("c", [1], [3.0]))]
    figure = parse(lines("Loss", series, "step", "loss"))
    (keys,) = with_class(figure, "legend")
    assert [(key[0].get("class"), key[0].tail) for key in keys] == [("key series-1", "a"), ("key series-3", "c")]
    assert [dot.get("class") for dot in with_class(figure, "dot")] == ["dot series-1", "dot series-3"]


def test_one_point_is_a_dot_in_the_middle():
    figure = parse(lines("Loss", [Series("", [7], [0.0])], "step", "loss"))
    (dot,) = with_class(figure, "dot")
    assert float(dot.get("cx")) == pytest.approx((axes.LEFT + axes.WIDTH - axes.RIGHT) / 2, abs=0.1)


def test_a_long_curve_keeps_its_extremes_in_few_points_and_the_table_its_ends():
    values = np.sin(np.arange(100_000) / 9000)
    values[[31_415, 77_777]] = 40, -40
    values[50_000:50_003] = np.nan
    figure = parse(lines("Loss", [Series("", range(100_000), values.tolist())], "step", "loss"))
    parts = points(figure)
    y = ticks(figure, "y")
    assert len(parts) == 2 and sum(map(len, parts)) <= 410
    heights = np.concatenate(parts)[:, 1]
    assert [heights.min(), heights.max()] == pytest.approx([y["40"], y["-40"]], abs=0.2)
    rows = table(figure)[1]
    assert len(rows) == 50 and rows[0][0] == "0" and rows[-1][0] == "99,999"
    assert len(str(lines("Loss", [Series("", range(100_000), values.tolist())], "step", "loss"))) < 40_000
    np.testing.assert_array_equal(curves.thin(values[:30], 30), np.arange(30))


def test_a_band_lies_around_its_curve():
    band = Series("a", [1, 2], [0.5, 0.6], [0.4, 0.5], [0.6, 0.8])
    figure = parse(lines("Labels", [band], "labels", "accuracy", percent=True))
    (curve,), (area,) = points(figure), points(figure, "band")
    per_unit = (curve[0, 1] - curve[1, 1]) / 0.1
    np.testing.assert_allclose(area[:2, 1] - curve[:, 1], 0.1 * per_unit, atol=0.2)
    np.testing.assert_allclose(curve[:, 1] - area[:1:-1, 1], [0.1 * per_unit, 0.2 * per_unit], atol=0.2)
    assert table(figure)[1] == [["1", "50.0%", "40.0%", "60.0%"], ["2", "60.0%", "50.0%", "80.0%"]]


def test_intervals_lie_on_their_axis_and_zero_is_marked():
    rows = [Row("b", -0.02, 0.01, 0.04), Row("c", None, 0.03, None), Row("d", None, None, None)]
    figure = parse(intervals("Difference", rows, percent=True))
    x = ticks(figure, "x")
    first, second = (float(one.get("cx")) for one in with_class(figure, "dot"))
    per_point = (x["4%"] - x["0%"]) / 4
    np.testing.assert_allclose([first - x["0%"], second - first], [per_point, 2 * per_point], atol=0.2)
    (whisker,) = with_class(figure, "whisker")
    low, high = re.match(r"M([\d.]+) \d+H([\d.]+)", whisker.get("d")).groups()
    np.testing.assert_allclose([float(low), float(high)], [x["-2%"], x["4%"]], atol=0.1)
    (zero,) = with_class(figure, "zero")
    assert float(zero.get("x1")) == pytest.approx(x["0%"], abs=0.1)
    assert [one.text for one in with_class(figure, "value")] == ["1.0% [-2.0, 4.0]", "3.0%", "–"]
    assert table(figure)[1][:2] == [["b", "1.0%", "-2.0%", "4.0%"], ["c", "3.0%", "–", "–"]]
    assert not with_class(parse(intervals("Accuracy", [Row("a", 0.1, 0.2, 0.3)])), "zero")


def test_histograms_show_shares_and_list_counts():
    figure = parse(histograms("Similarity", [-1, 0, 1], {"positive": [10, 30], "negative": [1, 1]}))
    y = ticks(figure, "y")
    one, other = (re.findall(r"V([\d.]+)H([\d.]+)", path.get("d")) for path in with_class(figure, "histogram"))
    base, top = y["0%"], y["80%"]
    heights = [(base - float(height)) / (base - top) * 0.8 for height, _ in one + other]
    np.testing.assert_allclose(heights, [0.25, 0.75, 0.5, 0.5], atol=0.002)
    assert table(figure)[1] == [["-1 to 0", "10 (25.0%)", "1 (50.0%)"], ["0 to 1", "30 (75.0%)", "1 (50.0%)"]]


def test_a_matrix_shades_shares_of_the_row():
    figure = parse(matrix("Confusions", [[8, 2, 0], [0, 0, 0], [5, 0, 15]], ["a", "b", "c"]))
    cells = with_class(figure, "cell")
    assert [float(cell.get("fill-opacity")) for cell in cells] == pytest.approx([0.64, 0.16, 0.2, 0.6])
    titles = [one.text for one in figure.iter("title")]
    assert titles[1] == "a taken for b: 2 (20.0%)"
    assert float(cells[1].get("x")) - float(cells[0].get("x")) == float(cells[2].get("y")) / 2
    assert table(figure) == (
        ["class", "a", "b", "c"],
        [["a", "8", "2", "0"], ["b", "0", "0", "0"], ["c", "5", "0", "15"]],
    )


def test_many_classes_are_a_table_of_the_most_frequent_mistakes():
    counts = 90 * np.eye(1000, dtype=int)
    counts[3, 5], counts[999, 0] = 10, 30
    figure = parse(matrix("Confusions", counts, [f"class {i}" for i in range(1000)]))
    assert not list(figure.iter("svg"))
    assert table(figure)[1] == [["class 999", "class 0", "30", "25.0%"], ["class 3", "class 5", "10", "10.0%"]]
    figure = parse(matrix("Confusions", np.eye(31, dtype=int), list(map(str, range(31)))))
    assert "None of 31 images" in "".join(figure.itertext())


def test_hostile_names_are_text_and_long_ones_lose_their_middle():
    long = f"start{'x' * 200}end"
    charts = [
        lines(HOSTILE, [Series(HOSTILE, [1, 2], [1, 2]), Series(long, [1, 2], [1, 2])], HOSTILE, HOSTILE),
        intervals(HOSTILE, [Row(HOSTILE, 1, 2, 3), Row(long, 1, 2, 3)]),
        histograms(HOSTILE, [0, 1], {HOSTILE: [1], long: [2]}),
        matrix(HOSTILE, np.eye(2, dtype=int), [HOSTILE, long]),
        matrix(HOSTILE, 1 - np.eye(31, dtype=int), [HOSTILE, long, *"abcdefghijklmnopqrstuvwxyz012"]),
    ]
    for figure in map(parse, charts):
        shown = "".join(figure.itertext())
        assert r"""</svg><script>alert(1)</script> " ' & \x00\t\u202e\udce9""" in shown
        assert long in shown  # In the table, at least.
        assert max((len(one.text) for one in figure.iter("text") if one.get("class") != "title"), default=0) <= 40
