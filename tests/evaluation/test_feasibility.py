"""What would stop an evaluation is said before the training."""

import numpy as np
import pytest

from tf_simclr import builders, devices
from tf_simclr.check import settings
from tf_simclr.data import sources
from tf_simclr.evaluation import feasibility
from tf_simclr.settings import RunConfig, override

TINY = {
    "data.image_size": 16,
    "model.resnet_depth": 10,
    "model.width_multiplier": 0.1,
    "model.num_groups": 1,
    "optimizer.warmup_epochs": 0,
}


def check(changes, num_images=60, num_classes=2, num_replicas=1):
    labels = np.arange(num_images) % num_classes
    source = sources.ArraySource(np.zeros([num_images, 16, 16, 3], np.uint8), labels)
    config = override(RunConfig(), TINY | changes)
    feasibility.check(config, builders.Sources(source, source, source), num_replicas)


def test_classes_whose_linear_classifier_does_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(feasibility, "_FEW_CLASSES", 5)
    monkeypatch.setattr(devices, "total_memory", lambda: 5_000)
    check({}, num_classes=5)
    check({"eval.protocols": ("knn", "linear_sgd")}, num_classes=6)
    for changes in (
        {},
        {"eval.protocols": ("linear_45",)},
        {"eval.protocols": ("knn",), "eval.label_efficiency": "frozen"},
    ):
        with pytest.raises(ValueError, match=r"use --eval_protocols=knn .* Received: 6 classes of 60 images"):
            check(changes, num_classes=6)
    monkeypatch.setattr(devices, "total_memory", lambda: 1 << 30)
    check({}, num_classes=6)


def test_trainings_need_an_image_for_every_device():
    finetune = {"eval.protocols": ("finetune",)}
    check(finetune, num_images=8, num_classes=4, num_replicas=4)
    with pytest.raises(ValueError, match="finetune needs .* Received: 4 and 8"):  # The others are held out.
        check(finetune, num_images=8, num_classes=4, num_replicas=8)
    efficiency = {"eval.label_efficiency": "trained"}
    check(efficiency, num_replicas=4)
    with pytest.raises(ValueError, match="needs as many labelled images .* Received: 4 and 8"):
        check(efficiency, num_replicas=8)


def test_what_is_no_protocol_is_refused_and_images_without_labels_are_not():
    with pytest.raises(ValueError, match="eval.protocols"):
        check({"eval.protocols": ("kn",)})
    source = sources.ArraySource(np.zeros([9, 16, 16, 3], np.uint8))
    config = override(RunConfig(), TINY | {"eval.protocols": ("finetune",)})
    feasibility.check(config, builders.Sources(source, source, source), 50)


def test_the_check_says_the_same():
    labels = np.arange(8) % 4
    source = sources.ArraySource(np.zeros([8, 16, 16, 3], np.uint8), labels)
    images = builders.Sources(source, source, source)
    assert not list(settings.evaluation(override(RunConfig(), TINY), images))
    config = override(RunConfig(), TINY | {"eval.protocols": ("kn",)})
    (found,) = settings.evaluation(config, images)
    assert (found.severity, found.topic) == ("fail", "evaluation") and "kn" in found.found
