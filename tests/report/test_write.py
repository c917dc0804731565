"""The report of a run as a file: whole, safe, and of a size that can be sent."""

import base64
import hashlib
import html.parser
import json
import os
import re

import numpy as np
import pytest
import run_folders
from paths import ROOT
from run_folders import Folder

import run as program
from tf_simclr.report import write_report
from tf_simclr.report.__main__ import main

SPECS = {
    "plain": Folder(),
    "hostile": Folder(num_classes=8, hostile=True),
    "without labels": Folder(labels=False),
    "training": Folder(evaluated=False),
    "killed": Folder(evaluated=False, killed=True),
    "older": Folder(older=True),
    "collapsed": Folder(collapsed=True),
    "two classes": Folder(num_images=3, num_classes=2),
}
ORDER = ["verdict", "curves", "views", "map", "neighbors", "suspects", "confusions", "efficiency", "health", "check",
         "settings", "environment", "commands"]  # fmt: skip
VOID = {"meta", "img", "input", "br", "hr", "link"}


class Page(html.parser.HTMLParser):
    """The elements of a page, with an error if they do not close in their order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text_of(self, tag):
        return "".join(text for name, text in self.texts if name == tag)

    @property
    def words(self):
        shown = (text for name, text in self.texts if name not in ("script", "style"))
        return " ".join(" ".join(shown).split())


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return {name: Page(write_report(run_folders.make(place / name, spec)).read_text()) for name, spec in SPECS.items()}


@pytest.mark.parametrize("name", SPECS)
def test_nothing_but_the_own_style_and_script_may_run(pages, name):
    page = pages[name]
    policy = next(one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    scripts = [one for one in page.all("script") if "type" not in one]
    assert len(scripts) == len(page.all("style")) == 1
    data = [text for tag, text in page.texts if tag == "script"]
    for kind, content in (("style", page.text_of("style")), ("script", data[-1])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for tag, attributes in page.elements:
        assert not [key for key in attributes if key == "style" or key.startswith("on")], tag
        for key in ("src", "href"):
            assert re.match("data:image/(png|jpeg);base64,|#", attributes.get(key, "#")), attributes


@pytest.mark.parametrize("name", SPECS)
def test_the_parts_are_in_order_and_every_link_leads_to_one(pages, name):
    page = pages[name]
    sections = [one["id"] for one in page.all("section")]
    assert sections == [part for part in ORDER if part in sections]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {one["href"][1:] for one in page.all("a")} - {"main"} <= set(sections)
    for element in page.elements:
        for key in ("aria-labelledby", "aria-describedby"):
            assert element[1].get(key) in {None, *ids}


def test_a_whole_run_has_every_part_and_no_trouble(pages):
    assert [one["id"] for one in pages["plain"].all("section")] == ORDER
    for name in set(SPECS) - {"older"}:
        assert "could be read" not in pages[name].words, name


def test_what_is_missing_is_said(pages):
    unlabelled = pages["without labels"]
    parts = {one["id"] for one in unlabelled.all("section")}
    assert parts == set(ORDER) - {"suspects", "confusions", "efficiency"}
    assert "Left out, since it takes labels" in unlabelled.words
    assert "Not evaluated yet." in pages["training"].words
    assert "Step 190 of 196 (96.9 %)" in pages["killed"].words
    assert "config.json is of another version of tf_simclr" in pages["older"].words
    assert "eval/label_top_1_accuracy 50.0 %" in pages["older"].words
    assert '"resnet_depth": 18' in pages["older"].text_of("pre")


def test_an_evaluation_and_a_map_of_earlier_weights_are_said(tmp_path):
    folder = run_folders.make(tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"global_step": 300}))
    words = Page(write_report(folder).read_text()).words
    assert "The evaluation is of step 300; the training has gone on since." in words
    assert "The map is of step 400." in words
    (folder / "result.json").write_text(json.dumps(result))
    words = Page(write_report(folder).read_text()).words
    assert "gone on since" not in words and "The map is of step" not in words


def test_names_are_text(pages):
    page = pages["hostile"]
    assert page.text_of("h1") + page.text_of("bdi") != ""
    assert "<b>run</b>" in page.text_of("bdi") and "<script>alert(1)</script>" in page.words
    assert {"u", "i"}.isdisjoint(tag for tag, _ in page.elements)
    assert len(page.all("img")) == len(pages["plain"].all("img"))
    shown = page.words
    assert "{{ 7 * 7 }}" in shown and "\\u202e" in shown
    assert not set("\u202e\t\udce9") & set(shown)


def test_a_map_of_2000_images_fits_into_10_megabytes(tmp_path):
    path = write_report(run_folders.make(tmp_path / "run", Folder(num_images=2000, num_classes=20)))
    assert path.stat().st_size < 10e6


def test_a_folder_whose_name_is_no_text_and_a_sheet_that_is_too_large(tmp_path):
    folder = run_folders.make(tmp_path / os.fsdecode(b"run\xff"))
    (folder / "views.png").write_bytes(bytes(3_000_001))
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert page.text_of("bdi").startswith("run\\udcff")
    assert page.text_of("pre").count("run\\udcff") == 2  # name and model_dir in config.json
    assert "views.png is too large" in page.words and not [one for one in page.all("img") if one["alt"]]


def test_a_run_without_its_result_or_with_empty_files_has_a_page(tmp_path):
    folder = run_folders.make(tmp_path / "run")
    (folder / "result.json").unlink()
    (folder / "export_inputs.npz").write_bytes(b"")
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "export_inputs.npz" in page.words and {one["id"] for one in page.all("section")} >= {"map", "curves"}


def test_files_of_another_form_cost_their_part_alone(tmp_path):
    folder = run_folders.make(tmp_path / "run")
    (folder / "check.json").write_text('{"findings": [{"severity": "new"}]}')
    (folder / "result.json").write_text('{"global_step": 9, "eval/num_test_images": 3, "label_efficiency": [{"a": 1}]}')
    page = Page(write_report(folder).read_text())
    assert {one["id"] for one in page.all("section")} == set(ORDER) - {"check", "efficiency"}
    for part in ("accuracies", "label efficiency", "data check"):
        assert f"The {part} cannot be shown" in page.words


def test_the_command_writes_one_report_or_a_page_of_several(tmp_path, capsys):
    runs = [str(run_folders.make(tmp_path / "runs" / name)) for name in "ab"]
    main([runs[0]])
    main([*runs, f"--output={tmp_path / 'compare.html'}"])
    main([str(tmp_path / "runs")])
    written = capsys.readouterr().out.split()
    assert written == [f"{runs[0]}/report.html", str(tmp_path / "compare.html"), str(tmp_path / "runs" / "index.html")]
    main([str(tmp_path)])  # runs at any depth
    assert capsys.readouterr().out.split() == [str(tmp_path / "index.html")]
    with pytest.raises(SystemExit) as ending:
        main([str(tmp_path / "nothing")])
    assert ending.value.code == 2
    assert capsys.readouterr().err.startswith("tf_simclr.report: A report takes the folder of a run")


def test_a_report_that_fails_costs_the_run_nothing(tmp_path, monkeypatch):
    assert program._place_of_report(run_folders.make(tmp_path / "run")).endswith("run/report.html")

    def fail(folder):
        raise KeyError("a bug")

    monkeypatch.setattr(program, "write_report", fail)
    assert program._place_of_report(tmp_path) == (
        "report:       not written (KeyError: 'a bug'); nothing else is affected"
    )


def test_any_two_of_the_20_colors_can_be_told_apart():
    """Also with red-green blindness, by the matrices of Machado et al. (2009), and in both themes."""
    visions = [
        np.eye(3),
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    ]
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    style = (ROOT / "tf_simclr" / "report" / "templates" / "style.css").read_text()
    colors = re.findall(r"--series-(\d+): #(\w{6});", style)
    assert [int(number) for number, _ in colors] == [*range(1, 21)] * 2
    for theme in np.array([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for _, code in colors]).reshape(
        2, 20, 3
    ):
        linear = np.where(theme <= 0.04045, theme / 12.92, ((theme + 0.055) / 1.055) ** 2.4)
        for vision in visions:
            x, y, z = np.cbrt(np.clip(linear @ np.transpose(vision), 0, 1) @ to_xyz.T / [0.9505, 1, 1.089]).T
            lab = np.stack([116 * y, 500 * (x - y), 200 * (y - z)], axis=1)
            distances = np.linalg.norm(lab[:, None] - lab, axis=-1) + 100 * np.eye(20)
            assert distances.min() > 14


def test_the_diagnosis_is_named_in_the_verdict_and_in_health(pages):
    finding = "The encoder has collapsed: projections of different images have a mean cosine similarity of 0.99."
    assert pages["collapsed"].words.count(finding) == 2
    assert "The run may be ill." in pages["collapsed"].words
    assert "Lower the learning rate or the temperature" in pages["collapsed"].words
    assert "The run may be ill." not in pages["plain"].words
    assert "None of the known diseases was found" in pages["plain"].words
