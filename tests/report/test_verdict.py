"""The verdict against the numbers in result.json."""

import json

import pytest
import run_folders
from run_folders import Folder

from tf_simclr.report.verdict import Accuracy, judge


@pytest.fixture
def result(tmp_path):
    return json.loads((run_folders.make(tmp_path / "run") / "result.json").read_text())


def test_the_verdict_takes_the_last_protocol_of_the_frozen_encoder(result):
    found = judge(result)
    assert found.accuracy.value == result["eval/linear_top_1_accuracy"]
    assert (found.protocol, found.is_frozen, found.num_images) == ("linear", True, 60)
    value = result["eval_untrained/linear_top_1_difference"]
    assert found.differences[0] == Accuracy("the untrained encoder", value - 0.06, value, value + 0.06)
    assert [one.name for one in found.differences] == ["the untrained encoder", "raw pixels"]
    assert found.protocols == ["kNN (k=20)", "linear"]
    title, (knn, linear) = found.rows[2]
    assert title == "raw pixels" and (knn.value, linear.value) == (pytest.approx(0.18), 0.2)
    assert len(found.cautions) == 1


def test_a_verdict_without_baselines_says_so(result):
    for key in [key for key in result if key.startswith("eval_")]:
        del result[key]
    del result["encoders"]["eval_untrained"], result["encoders"]["eval_raw_pixels"]
    found = judge(result)
    assert not found.differences and "eval.baselines=true" in found.cautions[0]


def test_leaks_and_a_fit_that_was_stopped_are_said(result):
    result["eval/num_test_images_in_train"] = 3
    result["protocols"]["linear"]["chosen"] = {"converged": False}
    cautions = judge(result).cautions
    assert cautions[0].startswith("3 of the 60 test images are, pixel by pixel, among the training images")
    assert "not converged" in cautions[1]


def test_a_network_trained_on_labels_is_judged_by_its_own_classifier():
    result = {
        "global_step": 5, "eval/num_test_images": 10, "eval/label_top_1_accuracy": 0.7, "encoders": {},
        "protocols": {"label": {"title": "the classifier"}},
    }  # fmt: skip
    found = judge(result)
    assert found.accuracy == Accuracy("the classifier", 0.7, 0.7, 0.7)
    assert not found.is_frozen and not found.rows and [one.name for one in found.accuracies] == ["the classifier"]


def test_there_is_no_verdict_without_labels(tmp_path):
    folder = run_folders.make(tmp_path / "run", Folder(labels=False))
    assert judge(json.loads((folder / "result.json").read_text())) is None
