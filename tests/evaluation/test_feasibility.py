"""What would stop an evaluation is said before the training."""

import os
import types

import numpy as np
import pytest
from test_run import make_config, write_images

import run
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


def source_of(num_images, num_classes=None):
    images = np.zeros([num_images, 16, 16, 3], np.uint8)
    return sources.ArraySource(images, None if num_classes is None else np.arange(num_images) % num_classes)


def check(changes, num_images=60, num_classes=2, num_replicas=1, **more):
    source = source_of(num_images, num_classes)
    config = override(RunConfig(), TINY | changes)
    strategy = types.SimpleNamespace(num_replicas_in_sync=num_replicas)
    feasibility.check(config, builders.Sources(source, source, source), strategy, **more)


def test_classes_whose_linear_classifier_does_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(feasibility, "_FEW_CLASSES", 5)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    needed = 8 * 28 * 6 * (100 + 1) + 4 * 0.1 * 60 * 6  # 28 copies of the weights, and the logits held out.
    monkeypatch.setattr(devices, "total_memory", lambda: needed)
    check({}, num_classes=6, width=100)
    monkeypatch.setattr(devices, "total_memory", lambda: needed - 1)
    check({}, num_classes=5, width=1000)
    check({"eval.protocols": ("knn", "linear_sgd")}, num_classes=6, width=100)
    frozen = {"eval.protocols": ("knn",), "eval.label_efficiency": "frozen"}
    linear_45 = {"eval.protocols": ("linear_45",)}
    for changes, remedy in (({}, "knn"), (linear_45, "knn"), (frozen, "knn and --label_efficiency=off")):
        message = rf"use --eval_protocols={remedy} or.*--use_labels=False. Received: 6 classes of 60 images"
        with pytest.raises(ValueError, match=message):
            check(changes, num_classes=6, width=100)
    with pytest.raises(ValueError, match=r"768 features .* leave raw pixels out \(eval.baselines\)"):
        check({"eval.baselines": True}, width=1)
    trained = {"train_mode": "supervised", "eval.label_efficiency": "frozen"}  # It is judged by its own classifier.
    check(trained, num_classes=6, width=100)


def test_the_encoder_is_built_to_know_its_width(monkeypatch):
    monkeypatch.setattr(feasibility, "_FEW_CLASSES", 1)
    monkeypatch.setattr(devices, "total_memory", lambda: 1)
    with pytest.raises(ValueError, match=r"The linear evaluation of 6 features"):
        check({})


def test_trainings_need_an_image_for_every_device():
    finetune = {"eval.protocols": ("finetune",)}
    check(finetune, num_images=8, num_classes=4, num_replicas=4)
    with pytest.raises(ValueError, match="finetune needs .* Received: 4 and 8"):  # The others are held out.
        check(finetune, num_images=8, num_classes=4, num_replicas=8)
    efficiency = {"eval.label_efficiency": "trained"}
    check(efficiency, num_replicas=4)
    with pytest.raises(ValueError, match="needs as many labelled images .* Received: 4 and 8"):
        check(efficiency, num_replicas=8)
    check(efficiency | finetune | {"train_mode": "supervised"}, num_replicas=8)  # They are left out.


def test_what_is_no_protocol_is_refused_and_images_without_labels_are_not():
    with pytest.raises(ValueError, match=r"eval\.protocols"):
        check({"eval.protocols": ("kn",)})
    check({"eval.protocols": ("finetune",)}, num_images=9, num_classes=None, num_replicas=50)


def test_the_check_says_the_same_and_the_run_before_it_trains(photos, tmp_path):
    source = source_of(8, 4)
    images = builders.Sources(source, source, source)
    assert not list(settings.evaluation(override(RunConfig(), TINY), images))
    (found,) = settings.evaluation(override(RunConfig(), TINY | {"eval.protocols": ("kn",)}), images)
    assert (found.severity, found.topic) == ("fail", "evaluation") and "kn" in found.found
    write_images(tmp_path / "photos", photos[:16, :16, :16], [f"{'ab'[i % 2]}" for i in range(16)])
    config = make_config(tmp_path / "run", tmp_path / "photos", train__steps=2, eval__protocols=("kn",))
    with pytest.raises(ValueError, match=r"eval\.protocols"):
        run.run(config)
    assert not (tmp_path / "run" / "checkpoints").exists()
