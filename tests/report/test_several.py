"""Pages about several runs: what is compared, with what, and what is left out, from synthetic folders."""

import html.parser
import json
import pathlib
import re

import chromium
import numpy as np
import pyarrow.parquet as pq
import pytest
from run_folders import Folder, make
from scipy import stats

from tf_simclr.report.index import write_index
from tf_simclr.report.several import write_several

IMAGES = 400


class Page(html.parser.HTMLParser):
    """What a page says and links to, as an HTML parser finds it."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.values: list[str] = []
        self.said, self._cell, self._hidden = "", False, 0
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.said = " ".join(self.said.split())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        assert not [name for name in found if name == "style" or name.startswith("on")], attributes
        assert tag not in ("i", "iframe", "object") and not ("src" in found and tag != "img"), (tag, attributes)
        self._hidden += tag in ("style", "script")
        self._cell = tag in ("td", "th") or (self._cell and tag != "tr")
        self.links += [found["href"]] if tag == "a" else []
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._hidden -= tag in ("style", "script")
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data):
        if not self._hidden:
            self.said += data
            if self._cell:
                self.rows[-1][-1] += data

    def row(self, *start: str) -> list[str]:
        """The only row of a table that starts like this."""
        (row,) = (row for row in self.rows if tuple(row[: len(start)]) == start)
        return row

    def column(self, head: str) -> list[str]:
        """The cells of a column of the first table that has it."""
        first = next(i for i, row in enumerate(self.rows) if head in row)
        column = self.rows[first].index(head)
        return [row[column] for row in self.rows[first + 1 :] if len(row) == len(self.rows[first])]


def worsen(folder: pathlib.Path, count: int, protocol: str = "eval/linear") -> tuple[np.ndarray, np.ndarray]:
    """Makes the predictions for the first images wrong; returns what was right before, and what is after."""
    path = folder / "features" / "predictions.parquet"
    table = pq.read_table(path)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    ours = columns["protocol"] == protocol
    wrong = ours & (np.cumsum(ours) <= count)
    after = np.where(wrong, (columns["label"] + 1) % 6, columns["predicted"])
    pq.write_table(table.set_column(table.schema.get_field_index("predicted"), "predicted", [after]), path)
    return tuple((values == columns["label"])[ours] for values in (columns["predicted"], after))


def change(path: pathlib.Path, **changes) -> None:
    """Changes values of a JSON file, by names with "__" for the dots."""
    values = json.loads(path.read_text())
    for name, value in changes.items():
        *sections, last = name.split("__")
        place = values
        for section in sections:
            place = place[section]
        place[last] = value
    path.write_text(json.dumps(values))


def test_two_runs_are_compared_image_by_image(tmp_path):
    a, b = (make(tmp_path / "runs" / name, Folder(num_images=IMAGES)) for name in "ab")
    before, after = worsen(b, 40)
    change(b / "config.json", model__temperature=0.5, seed=7)
    (b / "report.html").touch()
    (tmp_path / "pages").mkdir()
    page = Page(write_several([a, b], tmp_path / "pages" / "compare.html"))

    first, second, difference, interval, p_value = page.row("b", "linear")[2:]
    only_before, only_after = np.sum(before > after), np.sum(after > before)
    assert [float(second[:-2]), float(first[:-2])] == pytest.approx(
        [100 * before.mean(), 100 * after.mean()], abs=0.051
    )
    assert float(difference) == pytest.approx(100 * (after.mean() - before.mean()), abs=0.051)
    assert float(p_value) == pytest.approx(stats.binomtest(only_before, only_before + only_after).pvalue, rel=0.01)
    spread = 100 * (after.astype(float) - before).std() / IMAGES**0.5
    low, high = map(float, interval.split(" to "))
    assert [low, high] == pytest.approx([float(difference) - 1.96 * spread, float(difference) + 1.96 * spread], abs=0.4)
    assert "the weights of a are better" in page.said and "Another seed of pretraining" in page.said

    assert page.row("model.temperature") == ["model.temperature", "0.1", "0.5"]
    assert page.row("seed") == ["seed", "0", "7"]
    settings = [row[0] for row in page.rows if len(row) == 3 and "." in row[0]]
    assert "model.temperature" in settings and not {"data.data_dir", "model.resnet_depth"} & set(settings)
    assert "../runs/b/report.html" in page.links and not any("runs/a/" in link for link in page.links)


def test_curves_lie_over_each_other_by_epoch(tmp_path):
    a, b = make(tmp_path / "a"), make(tmp_path / "b", Folder(seed=5, killed=True))
    page = Page(write_several([a, b], tmp_path / "compare.html"))
    losses = [
        [json.loads(line)["loss"] for line in (one / "metrics.jsonl").read_text().splitlines()[:10]] for one in (a, b)
    ]
    start = next(i for i, row in enumerate(page.rows) if row == ["epoch", "a", "b"])
    shown = np.array([[float(cell) for cell in row] for row in page.rows[start + 1 : start + 11]])
    np.testing.assert_allclose(shown, np.stack([np.arange(1, 11) / 2, *losses], axis=1), rtol=1e-4)


def test_more_runs_have_one_sentence_and_a_run_has_one_colour(tmp_path):
    runs = [make(tmp_path / name, Folder(num_images=IMAGES)) for name in ("a", "b", "c", "d", "e")]
    for run, count in zip(runs[1:], (60, 60, 0, 1), strict=True):
        worsen(run, count)
    trains = make(tmp_path / "trains", Folder(evaluated=False))
    page = Page(write_several([trains, *runs], tmp_path / "compare.html"))
    assert "0 of 4 runs are better than a, and 2 are worse; 2 cannot be told apart from it." in page.said
    assert "Of 4 comparisons" in page.said
    heads = next(row for row in page.rows if row[0] == "epoch")
    assert heads[1:] == ["a", "b", "c", "d", "e", "trains"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (Folder(num_images=IMAGES, seed=3), "b: other test images than those of a"),
        (Folder(evaluated=False), "b: no predictions for labelled test images"),
        (Folder(labels=False), "b: no predictions for labelled test images"),
        (Folder(older=True), "b: no predictions for labelled test images"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, spec, says):
    a, b = make(tmp_path / "a", Folder(num_images=IMAGES)), make(tmp_path / "b", spec)
    page = Page(write_several([a, b], tmp_path / "compare.html"))
    assert says in page.said and "No other run can be compared with a" in page.said
    assert not any(row[:2] == ["b", "linear"] for row in page.rows)
    assert ("The settings of b are missing or of another version" in page.said) == spec.older


def test_runs_without_labels_have_curves_and_settings(tmp_path):
    runs = [make(tmp_path / name, Folder(labels=False, seed=seed)) for name, seed in (("a", 0), ("b", 1))]
    page = Page(write_several(runs, tmp_path / "compare.html"))
    assert "None of the runs has predictions for labelled test images" in page.said
    assert page.row("seed") == ["seed", "0", "1"] and ["epoch", "a", "b"] in page.rows


def test_names_are_shown_as_text_and_links_lead_to_them(tmp_path):
    a = make(tmp_path / "a b#?%", Folder(num_images=IMAGES))
    b = make(tmp_path / "<i>\u202e\"'&\n</i>", Folder(num_images=IMAGES, hostile=True, killed=True))
    for run in (a, b):
        (run / "report.html").touch()
    for page in (Page(write_several([a, b], tmp_path / "c.html")), Page(write_index(tmp_path, tmp_path / "i.html"))):
        assert "\u202e" not in page.text and r"""<i>\u202e"'&\n</i>""" in page.said
        assert {"a%20b%23%3F%25/report.html", "%3Ci%3E%E2%80%AE%22%27%26%0A%3C/i%3E/report.html"} <= set(page.links)


def test_a_comparison_takes_two_runs(tmp_path):
    a = make(tmp_path / "a")
    with pytest.raises(ValueError, match="takes two runs or more"):
        write_several([a, a / ".." / "a"], tmp_path / "compare.html")
    with pytest.raises(FileNotFoundError, match="the folder of a run"):
        write_several([a, tmp_path], tmp_path / "compare.html")
    assert not (tmp_path / "compare.html").exists()


def folder_of_runs(place: pathlib.Path) -> pathlib.Path:
    """Runs of many kinds, two of them on the same test images, and one of them two folders down."""
    for name, spec, accuracy in (
        ("a", Folder(num_images=IMAGES), 0.5), ("sweep/1/b", Folder(num_images=IMAGES), 0.75),
        ("c", Folder(seed=3), 0.6), ("trains", Folder(evaluated=False), None), ("old", Folder(older=True), None),
        ("bare", Folder(labels=False), None),
    ):  # fmt: skip
        run = make(place / name, spec)
        if accuracy is not None:
            change(run / "result.json", **{"eval/linear_top_1_accuracy": accuracy})
    make(place / ".trash" / "x")
    make(place / "a" / "features" / "copy")
    change(place / "sweep/1/b/config.json", model__temperature=0.5)
    return place


def test_an_index_lists_every_run_from_the_best(tmp_path):
    page = Page(write_index(folder_of_runs(tmp_path), tmp_path / "index.html"))
    assert [row[0] for row in page.rows] == ["run", "sweep/1/b", "c", "a", "bare", "old", "trains"]
    assert page.column("accuracy, linear") == ["75.0%", "60.0%", "50.0%", "–", "–", "–"]
    sets = dict(zip(page.column("run"), page.column("test set"), strict=True))
    assert sets["a"] == sets["sweep/1/b"] != sets["c"] and sets["trains"] == "–"
    assert "evaluated on 2 different sets of test images" in page.said
    assert page.column("model.temperature") == ["0.5", "0.1", "0.1", "0.1", "–", "0.1"]
    assert page.column("step")[-1] == "200" and "step 200" in page.column("state")[-1]
    with pytest.raises(FileNotFoundError, match="There is no run in the folder"):
        write_index(tmp_path / "a" / "features" / "copy" / "features", tmp_path / "index.html")


def test_pages_work_in_a_browser_and_the_index_sorts(tmp_path):
    folder_of_runs(tmp_path)
    pages = [
        write_several([tmp_path / "a", tmp_path / "sweep/1/b", tmp_path / "trains"], tmp_path / "compare.html"),
        write_index(tmp_path, tmp_path / "index.html"),
    ]
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is missing: see requirements-dev.txt"
    )
    with chromium.start() as browser:
        for path, width, scheme in zip(pages, (1100, 360), ("light", "dark"), strict=True):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            faults: list[str] = []
            page.on("console", lambda message, faults=faults: faults.append(message.text))
            page.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
            page.on("request", lambda request, faults=faults: faults.append(request.url))
            page.goto(path.as_uri())
            assert faults == [path.as_uri()]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = axe.Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
        rows = "[...document.querySelectorAll('tbody tr')].map(row => row.cells[{}].textContent)"
        head = page.get_by_role("button", name=re.compile("linear"))
        column = head.evaluate("button => button.parentElement.cellIndex")
        head.press("Enter")
        assert page.evaluate(rows.format(column)) == ["50.0%", "60.0%", "75.0%", "–", "–", "–"]
        head.click()
        assert page.evaluate(rows.format(column)) == ["75.0%", "60.0%", "50.0%", "–", "–", "–"]
        assert head.evaluate("button => button.parentElement.ariaSort") == "descending"
        page.get_by_role("button", name="run", exact=True).click()
        assert page.evaluate(rows.format(0)) == ["a", "bare", "c", "old", "sweep/1/b", "trains"]
