"""Comparing the evaluations of runs, from their folders alone."""

import io
import pathlib
import sys

import numpy as np
import pytest
from scipy import stats

from tf_simclr import compare
from tf_simclr.evaluation import Features, predictions
from tf_simclr.evaluation.verdict import Verdict
from tf_simclr.files import write_json
from tf_simclr.runs.predictions import predictions_path

LABELS = np.arange(1000) % 5


def write_run(folder: pathlib.Path, wrong, labels=LABELS, digest="a", protocols=("linear",)):
    """A run whose predictions are wrong on the given images."""
    folder.mkdir(parents=True)
    predicted = {
        f"eval/{name}": np.where(np.isin(np.arange(len(labels)), wrong), labels + 1, labels) for name in protocols
    }
    predicted["eval_untrained/linear"] = labels * 0
    verdicts = {
        place: Verdict({}, {}, {}, found, np.ones(len(labels), np.float32)) for place, found in predicted.items()
    }
    keys = np.arange(len(labels)).astype(str)
    test = Features(np.zeros([len(labels), 1]), labels, 1 + labels.max(), keys)
    predictions.write(predictions_path(folder), test, verdicts, {"digest of the names": digest})
    return str(folder)


def test_two_runs_are_compared_image_by_image(tmp_path, capsys):
    a = write_run(tmp_path / "a", range(100))
    b = write_run(tmp_path / "b", range(60, 190))  # 40 of them are wrong in both
    compare.main([a, b])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "linear, 1,000 test images: 90.0% and 87.0%"
    low, high = (float(word.strip("+")) for word in said[1].split("interval ")[1].split(" (")[0].split(" to "))
    deviation = 100 * np.sqrt((0.15 - 0.03**2) / 1000)
    np.testing.assert_allclose([low, high], [3 - 1.96 * deviation, 3 + 1.96 * deviation], atol=0.3)
    assert f"p = {stats.binomtest(60, 150).pvalue:.3g} (exact McNemar test)" in said[2]
    assert said[3] == f"  On images like these, the weights of {a} are better."
    assert "Another seed of pretraining may change an accuracy by more" in said[-1]


def test_a_difference_within_chance_is_a_tie(tmp_path):
    runs = [compare.load(write_run(tmp_path / name, wrong)) for name, wrong in (("a", range(50)), ("b", range(58)))]
    assert compare.paired.mcnemar(runs[0].hits("linear"), runs[1].hits("linear")) < compare.SIGNIFICANT  # 8 to 0
    runs[1] = compare.load(write_run(tmp_path / "c", range(10, 65)))
    assert "do not tell which weights are better" in compare.compare(runs[:1], runs[1:])


def test_several_runs_a_side_show_their_spread(tmp_path):
    for i, wrong in enumerate((100, 120, 110)):
        write_run(tmp_path / f"a_{i}", range(wrong))
        write_run(tmp_path / f"b_{i}", range(wrong + 100))
    said = compare.compare(compare.find(str(tmp_path / "a_*")), compare.find(str(tmp_path / "b_*")))
    test = stats.ttest_ind([0.9, 0.88, 0.89], [0.8, 0.78, 0.79], equal_var=False)
    low, high = test.confidence_interval(0.95)
    assert "first side: mean 89.0% of 3 runs (90.0%, 88.0%, 89.0%), standard deviation 1.0 points" in said
    assert f"difference +10.0 points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}, p = {test.pvalue:.3g}" in said


def test_a_run_that_was_judged_on_other_images_later_is_compared_on_those(tmp_path):
    """What counts is what the predictions were made on, not what the run was trained beside."""
    a, b = write_run(tmp_path / "a", range(5)), write_run(tmp_path / "b", range(9))
    write_json(tmp_path / "a" / "images.json", {"test": {"digest of the names": "another"}})
    assert "99.5% and 99.1%" in compare.compare(compare.find(a), compare.find(b))


def test_settings_that_differ_are_said(tmp_path):
    runs = []
    for name, k in (("a", 200), ("b", 20)):
        folder = write_run(tmp_path / name, range(5), protocols=("knn",))
        settings = {"title": f"kNN (k={k})", "k": k, "temperature": 0.1, "seed": k, "chosen": {"c": k}}
        write_json(tmp_path / name / "result.json", {"protocols": {"knn": settings}})
        runs.append(compare.load(folder))
    *_, last, caution = compare.compare(runs[:1], runs[1:]).splitlines()
    assert "Another seed" in last
    assert (
        caution
        == f"Caution: kNN (k=200) is not the same protocol everywhere: k is 200 in {tmp_path}/a, 20 in {tmp_path}/b"
    )
    assert "Caution" not in compare.compare(runs[:1], [runs[0]._replace(folder="c")])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"digest": "b"}, "on the same test images alone"),
        ({"labels": LABELS[::-1]}, "on the same test images alone"),
        ({"protocols": ("knn",)}, "judged by a common protocol"),
        (None, "There is no run of this name"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(tmp_path, capsys, other, says):
    a, b = write_run(tmp_path / "a", range(10)), str(tmp_path / "b")
    if other is not None:
        write_run(tmp_path / "b", range(20), **other)
    with pytest.raises(SystemExit) as end:
        compare.main([a, b])
    assert end.value.code == 2 and says in capsys.readouterr().err


def test_a_run_without_an_evaluation_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"--mode=eval --model_dir={tmp_path}"):
        compare.find(str(tmp_path))


def test_a_run_counts_once_and_on_one_side(tmp_path):
    for name, wrong in (("a_0", 10), ("a_1", 20), ("a_1_again", 30), ("b_0", 40)):
        write_run(tmp_path / name, range(wrong))
    (tmp_path / "a_best").symlink_to(tmp_path / "a_0")
    found = compare.find(str(tmp_path / "a_*"))
    assert [pathlib.Path(one.folder).name for one in found] == ["a_0", "a_1", "a_1_again"]
    with pytest.raises(ValueError, match="A run can be on one side only.*Received: .*a_1, .*a_1_again on both"):
        compare.compare(found, compare.find(str(tmp_path / "a_1*")))
    both = compare.find(str(tmp_path / "a_0"))
    assert "difference +0.0 points" in compare.compare(both, both)  # That is no claim about several runs.


def test_runs_that_do_not_differ_on_a_side_give_no_interval(tmp_path):
    for name in ("a_0", "a_1", "b_0", "b_1"):
        write_run(tmp_path / name, range(10 if name[0] == "a" else 20))
    said = compare.compare(compare.find(str(tmp_path / "a_*")), compare.find(str(tmp_path / "b_*")))
    assert said.endswith("difference +1.0 points; an interval takes runs that differ on a side")


def test_a_name_that_the_console_cannot_show_is_escaped(tmp_path, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    compare.main([write_run(tmp_path / "größe", range(10)), write_run(tmp_path / "b", range(100))])
    console.flush()
    assert b"the weights of " in console.buffer.getvalue() and b"gr\\xf6\\xdfe" in console.buffer.getvalue()
