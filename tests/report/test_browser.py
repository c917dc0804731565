"""Reports in a real browser: opened from a file, by mouse, finger and keyboard, in light and dark, small and printed.

Every page opened here may neither log an error, nor ask for anything, nor break its own content security policy.
"""

import contextlib
import dataclasses
import functools
import io
import json
import pathlib
import re
from typing import Any

import chromium
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from run_folders import SIZE_PX, Folder, make
from scipy.spatial import cKDTree

from tf_simclr.report.write import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: requirements-dev.txt names it")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe is missing: requirements-dev.txt names it"
)

PLAIN = Folder(num_images=200)
MANY = Folder(num_images=200, num_classes=60)
HOSTILE = Folder(num_images=60, hostile=True)
UNLABELED = Folder(num_images=60, labels=False)
KILLED = Folder(num_images=60, killed=True)
TRAINS = Folder(num_images=60, killed=True, evaluated=False)
OLDER = Folder(num_images=60, older=True)
LARGE = Folder(num_images=20_000, num_classes=10)
# The colour of a pixel of a canvas, read from a copy: the browser warns of a canvas that is read again and again.
PIXEL = """(canvas, x, y) => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  return [...copy.getImageData(x, y, 1, 1).data];
}"""
# Whether a thumbnail is more than an empty canvas.
DRAWN = f"canvas => ({PIXEL})(canvas, 24, 24)[3] === 255"
WORLD, MARGIN_PX = 4096, 24  # The map shows the square [0, WORLD]² with this margin.


@pytest.fixture(scope="module")
def browser():
    with chromium.start() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """The folder of a synthetic run with its report, made once a module."""

    @functools.cache
    def folder_of(spec: Folder) -> pathlib.Path:
        folder = make(tmp_path_factory.mktemp("runs") / "run", spec)
        write_report(folder)
        return folder

    return folder_of


@dataclasses.dataclass
class Opened:
    """A page, and what happened on it that must not."""

    page: Any
    folder: pathlib.Path
    faults: list[str]

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        return json.loads(self.page.locator("#map-data").text_content())

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / "features" / "map.parquet").to_pylist()

    def places(self, layout: str = "t-SNE", zoom: float = 1.0) -> np.ndarray:
        """Where all images are in the window, float [N, 2], when the middle of the map is in the middle."""
        canvas = self.page.locator("#map-canvas")
        canvas.scroll_into_view_if_needed()
        left, top, width, height = canvas.evaluate(
            "c => { const box = c.getBoundingClientRect();"
            " return [box.left + c.clientLeft, box.top + c.clientTop, c.clientWidth, c.clientHeight] }"
        )
        points = np.stack([self.data["layouts"][layout][axis] for axis in "xy"], axis=1) - WORLD / 2
        scale = (min(width, height) - 2 * MARGIN_PX) / WORLD * zoom
        return np.array([left + width / 2, top + height / 2]) + points * [scale, -scale]

    def click(self, place: np.ndarray) -> None:
        self.page.mouse.click(*place.tolist())

    def expect_selected(self, row: int | None) -> None:
        """Waits until the image of this row is the selected one; None: until none is."""
        shown = self.page.locator("#map-detail .map-selected bdi")
        playwright.expect(shown).to_have_text([self.data["names"][row]] if row is not None else [])

    def expect_status(self, text: str) -> None:
        playwright.expect(self.page.get_by_role("status")).to_have_text(text)

    def pixel(self, place: np.ndarray) -> list[int]:
        """Red, green and blue of what is seen there, once what is due is drawn."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        x, y = np.rint(place).tolist()
        shot = self.page.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))[0, 0].tolist()

    def colour(self, name: str) -> list[int]:
        """Red, green and blue of a property of the stylesheet, `#rrggbb`."""
        text = self.page.evaluate(
            "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()", name
        )
        return list(bytes.fromhex(text.removeprefix("#")))


@pytest.fixture
def open_report(browser, folder_of):
    """Opens the report of a run, with a script before the page's own; the options are those of a browser context."""
    with contextlib.ExitStack() as stack:
        opened = []

        def open_report(spec: Folder = PLAIN, change: Any = None, before: str = "", **options: Any) -> Opened:
            context = stack.enter_context(browser.new_context(reduced_motion="reduce", **options))
            page = context.new_page()
            page.add_init_script(before)
            file, faults = folder_of(spec) / "report.html", []
            if change:
                text = change(file.read_text(encoding="utf-8"))
                file = file.with_name("changed.html")
                file.write_text(text, encoding="utf-8")
            page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
            page.on("request", lambda request: faults.append(request.url))
            page.goto(file.as_uri())
            faults[:] = [fault for fault in faults if fault != file.as_uri() and not fault.startswith("data:")]
            opened.append(Opened(page, file.parent, faults))
            return opened[-1]

        yield open_report
        assert [one.faults for one in opened] == [[] for _ in opened]


def loneliest(places: np.ndarray) -> int:
    """The row whose nearest other point is the farthest, so that a click on it can mean no other."""
    distances, _ = cKDTree(places).query(places, 2)
    return int(np.argmax(distances[:, 1]))


def test_a_click_shows_the_image_and_its_neighbors(open_report):
    report = open_report()
    row = loneliest(report.places())
    report.click(report.places()[row])
    report.expect_selected(row)
    known = report.rows[row]
    facts = report.page.locator("#map-detail dd")
    playwright.expect(facts).to_have_text([known["label"], known["predicted"], f"cluster {known['cluster']}"])
    shown = report.page.locator(".map-neighbors li")
    playwright.expect(shown).to_have_text(
        [
            "".join((report.rows[other]["path"], report.rows[other]["label"], f"{distance:.3f}"))
            for other, distance in zip(known["neighbors"]["ids"], known["neighbors"]["distances"], strict=True)
        ]
    )
    shown.nth(1).get_by_role("button").click()
    report.expect_selected(known["neighbors"]["ids"][1])
    assert report.page.evaluate("document.activeElement.id") == "map-detail"  # Not lost with the button that had it.


def test_thumbnails_come_from_the_sprite(open_report):
    report = open_report()
    row = loneliest(report.places())
    report.click(report.places()[row])
    report.expect_selected(row)
    sprite = np.asarray(Image.open(report.folder / "features" / "thumbnails.jpg"), np.int32)
    columns = sprite.shape[1] // SIZE_PX
    near = report.page.locator("#map-detail .map-selected canvas")
    report.page.wait_for_function(DRAWN, arg=near.element_handle())
    drawn = near.evaluate(f"canvas => ({PIXEL})(canvas, canvas.width / 2, canvas.height / 2).slice(0, 3)")
    y, x = (SIZE_PX * np.array(divmod(row, columns)) + SIZE_PX // 2).tolist()
    np.testing.assert_allclose(drawn, sprite[y, x], atol=12)
    # Those that the page came with, too, and they lead to the map.
    far = report.page.locator("canvas[data-thumbnail]").last
    far.scroll_into_view_if_needed()
    report.page.wait_for_function(DRAWN, arg=far.element_handle())
    far.click()
    report.expect_selected(int(far.get_attribute("data-thumbnail")))
    playwright.expect(report.page.locator("#map-canvas")).to_be_in_viewport()


def test_buttons_zoom_about_the_middle(open_report):
    report = open_report()
    row = loneliest(report.places())
    report.page.get_by_role("button", name="Zoom in").click()
    report.click(report.places(zoom=1.5)[row])
    report.expect_selected(row)
    report.page.get_by_role("button", name="Whole map").click()
    report.click(report.places()[row])
    report.expect_selected(row)


def test_the_wheel_zooms_about_the_pointer_once_the_map_has_the_focus(open_report):
    report = open_report()
    row = loneliest(report.places())
    place = report.places()[row]
    report.page.mouse.move(*place.tolist())
    before = report.page.evaluate("scrollY")
    report.page.mouse.wheel(0, -100)
    report.page.wait_for_function("before => scrollY < before", arg=before)
    place = report.places()[row]
    report.click(place)
    report.page.mouse.wheel(0, -400)
    playwright.expect(report.page.locator("#map-canvas")).to_have_class("zoomed")
    report.page.keyboard.press("Escape")
    report.expect_selected(None)
    report.click(place)
    report.expect_selected(row)


def test_dragging_moves_the_map(open_report):
    report = open_report()
    row = loneliest(report.places())
    place = report.places()[row]
    report.page.mouse.move(*place.tolist())
    report.page.mouse.down()
    report.page.mouse.move(*(place + [30, 20]).tolist(), steps=3)
    report.page.mouse.up()
    report.expect_selected(None)
    report.click(place + [30, 20])
    report.expect_selected(row)


def test_two_fingers_zoom(open_report):
    report = open_report(has_touch=True)
    middle = report.places().mean(axis=0)
    session = report.page.context.new_cdp_session(report.page)

    def touch(kind: str, *points: np.ndarray) -> None:
        touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    touch("touchStart", middle - [20, 0], middle + [20, 0])
    for reach in (30, 40, 60):
        touch("touchMove", middle - [reach, 0], middle + [reach, 0])
    touch("touchEnd")
    playwright.expect(report.page.locator("#map-canvas")).to_have_class("zoomed")
    report.expect_selected(None)


def test_the_keyboard_reaches_every_image(open_report):
    report = open_report()
    places = report.places()
    canvas = report.page.locator("#map-canvas")
    canvas.focus()
    box = canvas.bounding_box()
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    report.page.keyboard.press("Enter")
    row = int(np.argmin(np.linalg.norm(places - middle, axis=1)))
    report.expect_selected(row)
    for key, (right, down) in {"ArrowRight": (1, 0), "ArrowUp": (0, -1)}.items():
        dx, dy = (places - places[row]).T
        ahead, aside = dx * right + dy * down, np.abs(dx * down + dy * right)
        reachable = (ahead > 0) & (aside <= ahead)
        row = int(np.argmin(np.where(reachable, np.hypot(dx, dy), np.inf)))
        report.page.keyboard.press(key)
        report.expect_selected(row)
    report.page.keyboard.press("Escape")
    report.expect_selected(None)
    report.page.keyboard.press("ArrowRight")  # Moves the map now, and what is on it to the left.
    row = loneliest(places)
    report.click(places[row] - [40, 0])
    report.expect_selected(row)
    report.page.keyboard.press("0")
    report.page.keyboard.press("+")
    report.click(report.places(zoom=1.5)[row])
    report.expect_selected(row)


def test_the_legend_filters(open_report):
    report = open_report()
    labels = [row["label"] for row in report.rows]
    places = report.places()
    row = loneliest(places)
    others = [name for name in sorted(set(labels)) if name != labels[row]]
    legend = report.page.get_by_role("group", name="Legend")
    for number, name in enumerate(others[:2], 1):
        legend.get_by_role("button", name=name).click()
        shown = sum(label in others[:number] for label in labels)
        report.expect_status(f"{shown} of 200 images shown")
    playwright.expect(legend.get_by_role("button", name=others[1])).to_be_focused()
    report.click(places[row])
    report.expect_selected(None)
    legend.get_by_role("button", name="Clear the filter").click()
    report.click(places[row])
    report.expect_selected(row)


def test_more_classes_than_colours_are_chosen_from_a_list(open_report):
    report = open_report(MANY)
    labels = [row["label"] for row in report.rows]
    legend = report.page.get_by_role("group", name="Legend")
    playwright.expect(legend.get_by_role("button")).to_have_count(0)
    chosen = [labels[loneliest(report.places())], labels[0]]
    for name in chosen:
        legend.get_by_role("combobox").select_option(name)
    report.expect_status(f"{sum(label in chosen for label in labels)} of 200 images shown")
    row = loneliest(report.places())
    assert report.pixel(report.places()[row]) == report.colour("--series-1")
    legend.get_by_role("button", name=chosen[0]).click()
    assert report.page.evaluate("document.activeElement.closest('#map-legend') !== null")
    report.expect_status(f"{labels.count(chosen[1])} of 200 images shown")


def test_search_counts_and_goes_through_the_matches(open_report):
    report = open_report()
    box = report.page.get_by_role("searchbox")
    found = [number for number, row in enumerate(report.rows) if "1" in row["path"] or "1" in row["label"]]
    box.fill("1")
    report.expect_status(f"{len(found)} images found")
    for number in found[:2]:
        box.press("Enter")
        report.expect_selected(number)
    box.fill("no such image")
    report.expect_status("0 images found")
    box.fill("")
    report.expect_status("200 images")


def test_the_layout_can_be_changed(open_report):
    report = open_report()
    report.page.get_by_role("radio", name="PCA").check()
    row = loneliest(report.places("PCA"))
    report.click(report.places("PCA")[row])
    report.expect_selected(row)


def test_colours_follow_the_class_and_the_dark_mode(open_report):
    report = open_report()
    row = loneliest(report.places())
    property_name = f"--series-{report.data['columns']['class']['values'][row] + 1}"
    seen = []
    for scheme in ("light", "dark"):
        report.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        seen.append(report.pixel(report.places()[row]))
        assert seen[-1] == report.colour(property_name)
    assert seen[0] != seen[1]


def test_a_column_of_numbers_is_a_ramp(open_report):
    def with_numbers(text: str) -> str:
        numbers = json.dumps({"values": [None, *range(-10, 189)]})
        return text.replace('"columns":{', f'"columns":{{"sharpness":{numbers},', 1)

    report = open_report(change=with_numbers)
    playwright.expect(report.page.locator("#map-legend .map-number")).to_have_text(["-10", "188"])
    places = report.places()
    seen = {row: report.pixel(places[row]) for row in (0, 199)}
    assert seen == {0: report.colour("--map-plain"), 199: report.colour("--map-high")}


def test_twenty_thousand_points(open_report):
    report = open_report(LARGE)
    row = loneliest(report.places())
    report.click(report.places()[row])
    report.expect_selected(row)
    report.page.get_by_role("searchbox").fill("/19999.")
    report.expect_status("1 image found")


def test_hostile_names_are_text(open_report):
    report = open_report(HOSTILE)
    assert "<script>alert(1)</script>" in report.page.locator("#map-legend button bdi").all_text_contents()
    box = report.page.get_by_role("searchbox")
    for query, name in {
        "onerror": "<img src=x onerror=alert(1)>.png",
        "gnp": "\\u202egnp.exe",
        "b'c": "a\"b'c.png",
    }.items():
        box.fill(query)
        box.press("Enter")
        playwright.expect(report.page.locator(".map-selected bdi")).to_have_text(re.compile(re.escape(name) + "$"))
    assert report.page.locator("img[src='x']").count() == 0


@pytest.mark.parametrize("spec", [PLAIN, HOSTILE, UNLABELED, KILLED, TRAINS, OLDER])
def test_fits_a_phone(open_report, spec):
    page = open_report(spec, viewport={"width": 360, "height": 740}).page
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize(
    ("spec", "scheme"), [(HOSTILE, "light"), (HOSTILE, "dark"), (UNLABELED, "light"), (TRAINS, "dark")]
)
def test_is_accessible(open_report, spec, scheme):
    page = open_report(spec, color_scheme=scheme).page
    if spec.evaluated:
        page.locator("#map-canvas").focus()
        page.keyboard.press("Enter")
    if scheme == "light":
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    tags = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    results = axe.Axe().run(page, options={"runOnly": tags, "resultTypes": ["violations"]})
    assert results.violations_count == 0, results.generate_report()


def test_without_labels_the_map_has_clusters(open_report):
    report = open_report(UNLABELED)
    playwright.expect(report.page.locator("#map-column option")).to_have_text(["cluster"])
    row = loneliest(report.places())
    report.click(report.places()[row])
    report.expect_selected(row)


def test_without_javascript_a_sentence_says_so(open_report):
    report = open_report(java_script_enabled=False)
    playwright.expect(report.page.get_by_text("The map needs JavaScript")).to_be_visible()
    playwright.expect(report.page.locator("#map-canvas")).not_to_be_visible()
    playwright.expect(report.page.get_by_role("heading", level=1)).to_be_visible()


def test_can_be_printed(open_report):
    # Also before the thumbnails' picture is decoded: printing waits for no promise.
    report = open_report(before="HTMLImageElement.prototype.decode = () => new Promise(() => {})")
    pages = len(re.findall(rb"/Type\s*/Page\b", report.page.pdf()))
    assert 2 <= pages <= 40
    # The thumbnails that were never in view are on paper, too.
    thumbnails = report.page.locator("canvas[data-thumbnail]").element_handles()
    assert thumbnails and all(one.evaluate(DRAWN) for one in thumbnails)
    report.page.emulate_media(media="print")
    playwright.expect(report.page.locator("#map-controls")).not_to_be_visible()
    playwright.expect(report.page.locator("#map-canvas")).to_be_visible()


def test_runs_no_script_but_its_own(open_report):
    report = open_report()
    report.page.evaluate(
        "const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s);"
        "document.body.setAttribute('style', 'color: red')"
    )
    assert report.page.title() != "1"
    assert len([fault for fault in report.faults if "Content Security Policy" in fault]) == 2
    report.faults.clear()
