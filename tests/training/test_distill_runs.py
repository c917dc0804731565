"""Runs that learn from a teacher: which teachers are found, how such a run resumes, and what it needs afterwards."""

import contextlib
import json
import pathlib
import re
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
from processes import variables
from replicas import mirrored
from test_run import exports_that_are_not_verified, make_config, write_images  # noqa: F401

import run
from tf_simclr import builders, devices
from tf_simclr.data import batches, sources
from tf_simclr.export import export_encoder
from tf_simclr.keras import keras
from tf_simclr.runs import models, teachers
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.runs.folder import open_run
from tf_simclr.settings import RunConfig, override
from tf_simclr.training import train as program

TINY = {"eval__protocols": ("knn",), "eval__knn_k": 3, "eval__map_images": None, "optimizer__warmup_epochs": 0}
STEPS = 6


def config_of(model_dir, images, **changes):
    return make_config(model_dir, images, **(TINY | {"train__steps": STEPS, "train__checkpoint_steps": 4} | changes))


def distill(model_dir, images, teacher, **changes):
    return config_of(model_dir, images, train_mode="distill", distill__teacher=str(teacher), **changes)


def train(config):
    with open_run(config) as folder:
        return program.train(config, builders.build_sources(config, folder), folder)


@pytest.fixture(scope="module")
def images(photos, tmp_path_factory):
    """Two classes, train and test: 20 + 10 images."""
    folder = tmp_path_factory.mktemp("images")
    made = np.concatenate([photos, 255 - photos])[:30, :16, :16]
    write_images(folder, made, [f"{'train' if i < 20 else 'test'}/{'odd' if i % 2 else 'even'}" for i in range(30)])
    return folder


@pytest.fixture(scope="module")
def taught(images, tmp_path_factory):
    """The folder of a supervised run on larger images, with a layer of a head, and its model."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    config = config_of(
        folder, images, train_mode="supervised", data__image_size=24, model__classifier_layer=1, seed=5, train__steps=2
    )
    return folder, train(config)


@pytest.fixture(scope="module")
def export(taught, tmp_path_factory):
    return export_encoder(taught[1], tmp_path_factory.mktemp("export") / "1")


def answers(teacher, **changes):
    """What a teacher says of some views, and the teacher."""
    config = override(
        RunConfig(),
        {"train_mode": "distill", "distill.teacher": str(teacher), "data.image_size": 24, "train.precision": "float32"}
        | {name.replace("__", "."): value for name, value in changes.items()},
    )
    opened = teachers.open_teacher(config)
    views = np.random.default_rng(0).integers(0, 256, [3, opened.image_size, opened.image_size, 3]) / np.float32(255)
    return opened(tf.constant(views, tf.float32)).numpy(), opened


def centred(logits):
    return logits - logits.mean(axis=1, keepdims=True)


def test_a_run_a_checkpoint_and_every_way_into_an_export_are_the_same_teacher(taught, export):
    folder, model = taught
    found, teacher = answers(folder)
    assert (teacher.width, teacher.image_size) == (2, 24)
    views = np.random.default_rng(0).integers(0, 256, [3, 24, 24, 3]) / np.float32(255)
    np.testing.assert_allclose(found, model(views.astype(np.float32), training=False), rtol=1e-5, atol=1e-6)
    again, other = answers(folder / "checkpoints" / "ckpt-2", model__classifier_layer=1)
    np.testing.assert_allclose(again, found, rtol=1e-5, atol=1e-6)
    assert other.image_size == 24
    for way in (export, f"{export}#__call__:logits_sup"):
        logits, teacher = answers(way)
        assert teacher.identity["output"] == "logits_sup" and teacher.identity["function"] == "__call__"
        np.testing.assert_allclose(logits, found, rtol=1e-4, atol=1e-5)
    # Its probabilities are as good; the files that it takes are cut to their middle first, as images are for serving.
    scores, teacher = answers(f"{export}#classify")
    assert teacher.identity["output"] == "scores" and scores.shape == (3, 2)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(centred(scores), centred(found), rtol=1e-3, atol=1e-4)
    vectors, teacher = answers(export, distill__target="representations")
    own = model.encoder(views.astype(np.float32), training=False)
    assert teacher.identity["output"] == "final_avg_pool"
    np.testing.assert_allclose(vectors, own, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answers(folder, distill__target="representations")[0], own, rtol=1e-4, atol=1e-5)


def test_what_a_checkpoint_from_outside_a_run_does_not_tell_is_said(taught, tmp_path, caplog):
    for path in (taught[0] / "checkpoints").glob("ckpt-2.*"):
        shutil.copy(path, tmp_path)
    with contextlib.suppress(ValueError):  # Its classifier reads a layer of the head, of another width.
        answers(tmp_path / "ckpt-2")
    assert re.search(
        r"ckpt-2 is in no folder of a run.*: the stem cifar, images of 32 px, .* that reads the representation\. .*"
        r"--mode=export --checkpoint with --stem, --image_size and --ft_proj_selector",
        caplog.text,
    )
    caplog.clear()
    answers(taught[0] / "checkpoints" / "ckpt-2", model__classifier_layer=1)
    assert "no folder of a run" not in caplog.text


def test_the_references_export_is_a_teacher_of_its_logits(shared_dir, golden_dir):
    golden = np.load(golden_dir / "reference_export_outputs.npz")
    _, teacher = answers(shared_dir / "reference_export" / "r18_cifar", data__image_size=32)
    images = tf.constant(golden["images_uint8"] / np.float32(255), tf.float32)
    assert teacher.identity["output"] == "logits_sup"
    np.testing.assert_allclose(teacher(images), golden["out/logits_sup"], rtol=1e-3, atol=1e-4)


def test_a_model_of_keras_is_a_teacher_whether_it_gives_logits_or_probabilities(tmp_path):
    keras.utils.set_random_seed(0)
    images = keras.Input([24, 24, 3])
    kinds = keras.layers.Dense(4, name="kinds")(keras.layers.GlobalAveragePooling2D()(images))
    for name, output in {"logits": kinds, "softmax": keras.layers.Softmax()(kinds)}.items():
        tf.saved_model.save(keras.Model(images, output), str(tmp_path / name))
    logits, teacher = answers(tmp_path / "logits")
    assert teacher.width == 4
    of_probabilities, _ = answers(tmp_path / "softmax")
    np.testing.assert_allclose(centred(of_probabilities), centred(logits), rtol=1e-4, atol=1e-5)


def test_what_cannot_teach_is_refused_in_a_sentence(images, taught, tmp_path):
    folder, model = taught
    with pytest.raises(ValueError, match=r"distill needs --teacher.*such as --teacher=runs/finetuned. Received: none"):
        config_of(tmp_path, images, train_mode="distill")
    with pytest.raises(ValueError, match=r"--teacher is for --train_mode=distill: .*=pretrain. Received: runs/a"):
        models.initial_model(config_of(tmp_path, images, distill__teacher="runs/a"), 20, 2)
    with pytest.raises(ValueError, match=r"--microbatch_size is for --train_mode=pretrain.*=distill. Received: 4"):
        distill(tmp_path, images, folder, train__microbatch_size=4)
    with pytest.raises(ValueError, match=r"--distill_label_weight is for --distill_target=logits"):
        distill(tmp_path, images, folder, distill__target="representations", distill__label_weight=0.5)
    with pytest.raises(FileNotFoundError, match=r"--teacher.*Found no weights.*Received: /nowhere"):
        train(distill(tmp_path / "a", images, "/nowhere"))
    tf.train.Checkpoint(encoder=model.encoder).write(str(tmp_path / "encoder"))
    with pytest.raises(
        ValueError, match=r"--teacher.*: The teacher must have a classifier.*--distill_target=represent"
    ):
        answers(tmp_path / "encoder")
    export_encoder(model.encoder, tmp_path / "export", image_size=24)
    with pytest.raises(ValueError, match=r"no output that is known to be logits.*embedding \[B, \d+\]. Received"):
        answers(tmp_path / "export")
    settings = distill(tmp_path, images, folder)
    with pytest.raises(ValueError, match=r"must have the classes of the images.*2 classes of the teacher and 3 of the"):
        models.initial_model(settings, 20, 3)
    with pytest.raises(ValueError, match=r"--distill_label_weight needs labels.*Received: images without classes"):
        models.initial_model(override(settings, {"distill.label_weight": 0.5}), 20, None)


def test_a_teacher_whose_settings_are_broken_is_refused_by_the_name_of_the_flag(taught, tmp_path):
    folder = shutil.copytree(taught[0], tmp_path / "run")
    (folder / "config.json").write_bytes(b"\xff")  # whose UnicodeDecodeError takes five arguments
    with pytest.raises(ValueError, match="^--teacher: distill.teacher: .*decode"):
        answers(folder)


def test_a_teacher_is_known_by_the_layer_of_its_classifier_and_its_encoders_code(taught, tmp_path, monkeypatch):
    assert answers(taught[0])[1].identity.keys() == {"weights", "classifier_layer"}
    assert answers(taught[0], distill__target="representations")[1].identity.keys() == {"weights"}
    monkeypatch.setattr(teachers.own_encoder, "digest_of_code", lambda name: f"code of {name}")
    _, teacher = answers(taught[0])
    assert (teacher.identity["classifier_layer"], teacher.identity["code"]) == (1, "code of resnet")

    student, source = types.SimpleNamespace(teacher=teacher), types.SimpleNamespace(class_names=None)
    arguments = override(RunConfig(), {"distill.teacher": str(taught[0])}), student, source, tmp_path
    teachers.attach(*arguments, start_step=0)
    found = json.loads((tmp_path / teachers.FILE).read_text())
    assert found == {"width": teacher.width, "image_size": teacher.image_size} | teacher.identity
    teachers.attach(*arguments, start_step=1)
    for changed in ({"code": "another"}, {"classifier_layer": 0}):
        (tmp_path / teachers.FILE).write_text(json.dumps(found | changed))
        with pytest.raises(ValueError, match="The teacher has changed since the run in .* started: put it back"):
            teachers.attach(*arguments, start_step=1)


def test_a_saved_model_is_compiled_only_if_that_is_asked_for_and_never_where_it_decodes_files(
    taught, export, images, monkeypatch
):
    def compiles(teacher, asked, **changes):
        config = distill("unused", images, teacher, train__jit_compile=asked, **changes)
        return models.initial_model(config, 20, 2).jit_compile

    monkeypatch.setattr(devices, "resolve_jit_compile", lambda asked: asked != "off")
    assert compiles(taught[0], "auto") is True
    assert compiles(f"{export}#classify", "auto") is False
    representations = {"distill__target": "representations"}
    assert compiles(f"{export}#encode", "on", **representations) is True
    for function, changes in (("classify", {}), ("pixels", representations)):  # The latter takes images of any size.
        with pytest.raises(ValueError, match=r"image files does not compile: .*--teacher=PATH#FUNCTION.*Received: "):
            compiles(f"{export}#{function}", "on", **changes)


def test_classes_of_other_names_are_refused(photos, taught, tmp_path):
    write_images(tmp_path / "images", photos[:, :16, :16], ["cat" if i % 2 else "dog" for i in range(16)])
    config = distill(tmp_path / "run", tmp_path / "images", taught[0])
    with pytest.raises(ValueError, match=r"in the same order: .*Received: cat, dog, and even, odd"):
        train(config)


@pytest.mark.parametrize("target", ["logits", pytest.param("representations", marks=pytest.mark.slow)])
def test_a_run_resumes_bit_for_bit_with_a_teacher_that_has_moved_but_not_with_another(
    images, taught, tmp_path, monkeypatch, target
):
    teacher = shutil.copytree(taught[0], tmp_path / "teacher")
    changes = {"distill__target": target, "data__label_percent": 30, "train__log_every_steps": 4}
    train(distill(tmp_path / "a", images, teacher, **changes))
    make_dataset = batches.train_dataset
    with monkeypatch.context() as patch:
        patch.setattr(batches, "train_dataset", lambda *args, **kwargs: make_dataset(*args, **kwargs).take(5))
        train(distill(tmp_path / "b", images, teacher, **changes))
    assert list(list_checkpoints(tmp_path / "b")) == [4]
    (tmp_path / "teacher").rename(tmp_path / "moved")
    train(distill(tmp_path / "c" / ".." / "b", images, tmp_path / "moved", **changes))
    assert (tmp_path / "a" / "metrics.jsonl").read_text() == (tmp_path / "b" / "metrics.jsonl").read_text()
    resumed, whole = (variables(list_checkpoints(tmp_path / name)[STEPS]) for name in "ba")
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)

    for path in (tmp_path / "b" / "checkpoints").glob("ckpt-6*"):
        path.unlink()
    other = config_of(tmp_path / "other", images, train_mode="supervised", seed=6, train__steps=1, data__image_size=24)
    train(other)
    with pytest.raises(ValueError, match="The teacher has changed since the run in .* started: put it back"):
        train(distill(tmp_path / "b", images, tmp_path / "other", **changes))


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("representations", "eval/knn_top_1_accuracy"),
        pytest.param("logits", "eval/label_top_1_accuracy", marks=pytest.mark.slow),
    ],
)
def test_a_finished_student_is_evaluated_and_exported_without_its_teacher(images, taught, tmp_path, target, key):
    teacher = shutil.copytree(taught[0], tmp_path / "teacher")
    run.run(distill(tmp_path / "run", images, teacher, distill__target=target, mode="train"))
    shutil.rmtree(teacher)
    # A protocol that trains starts from the student, where that is judged as a pretrained encoder is.
    protocols = ("knn", "semi_supervised_10") if target == "representations" else ("knn",)
    changes = {"eval__baselines": True, "eval__protocols": protocols}
    finished = distill(tmp_path / "run", images, teacher, distill__target=target, **changes)
    report = run.run(finished)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["global_step"] == STEPS and 0 <= result[key] <= 1
    assert "eval_untrained/knn_top_1_accuracy" in result  # The same network with the weights of the seed.
    for name in ("knn", "semi_supervised_10"):
        assert (f"eval/{name}_top_1_accuracy" in result) == (target == "representations")
    assert str(tmp_path / "run" / "saved_model" / str(STEPS)) in report and "not written" not in report
    signatures = tf.saved_model.load(str(tmp_path / "run" / "saved_model" / str(STEPS))).signatures
    assert ("classify" in signatures) == (target == "logits")
    # The student can be the start of another run, and a teacher.
    again = config_of(tmp_path / "tuned", images, train_mode="finetune", checkpoint=str(tmp_path / "run"))
    with open_run(again) as folder:
        model, _, _ = models.load_model(again, builders.build_sources(again, folder).train)
    student = variables(list_checkpoints(tmp_path / "run")[STEPS])
    kernel = model.encoder.trainable_variables[0].numpy()
    assert any(value.shape == kernel.shape and np.array_equal(value, kernel) for value in student.values())


@pytest.mark.slow
def test_images_without_labels_are_enough_for_both_targets(photos, taught, tmp_path):
    np.savez(tmp_path / "images.npz", images=np.concatenate([photos, 255 - photos])[:20, :16, :16])
    for target in ("logits", "representations"):
        config = distill(tmp_path / target, tmp_path / "images.npz", taught[0], distill__target=target)
        model = train(config)
        lines = [json.loads(line) for line in (tmp_path / target / "metrics.jsonl").read_text().splitlines()]
        assert lines[-1]["step"] == STEPS and np.isfinite(lines[-1]["loss"]) and "top_1_accuracy" not in lines[-1]
        assert model.is_pretrained == (target == "representations")


@pytest.mark.slow
def test_a_saved_model_teaches_on_two_replicas_what_it_teaches_on_one(images, export, tmp_path):
    losses = []
    for count in (1, 2):
        config = distill(tmp_path / str(count), images, export, train__precision="float32", model__global_bn=True)
        with mirrored(count).scope():
            train(config)
        path = pathlib.Path(config.model_dir) / "metrics.jsonl"
        losses.append([json.loads(line)["loss"] for line in path.read_text().splitlines()])
    np.testing.assert_allclose(*losses, rtol=1e-3)


def few(train_mode, percent, source, probe=None):
    config = override(RunConfig(), {"data.label_percent": percent})
    other = {"finetune": {"checkpoint": "a"}, "distill": {"distill.teacher": "a"}}.get(train_mode, {})
    config = override(config, {"train_mode": train_mode, **other})
    opened = builders.Sources(source, source, source)
    return builders.data._settle_labels(config, opened)


def test_a_share_of_the_labels_is_that_of_the_evaluation_and_the_other_images_stay_where_labels_are_no_must(photos):
    labels = np.arange(16) % 2
    labels[3] = -1
    source = sources.ArraySource(photos, labels, ("even", "odd"))
    expected = source.few_labels(25).images
    for train_mode in ("finetune", "supervised"):
        train, probe, _ = few(train_mode, 25, source)
        np.testing.assert_array_equal(train.images, expected)
        assert train.num_classes == 2 and probe is train
    for train_mode in ("pretrain", "distill"):
        train, probe, test = few(train_mode, 25, source)
        assert train.num_examples == 16 and probe is test is source  # The evaluation of h sees all labels.
        np.testing.assert_array_equal(train.images[train.is_labelled], expected)
        np.testing.assert_array_equal(train.labels[train.is_labelled], labels[train.is_labelled])
        assert few(train_mode, 100, source).train.labels is source.labels
    with pytest.raises(ValueError, match="label_percent: data.label_percent must be from 1 to 100. Received: 0"):
        override(RunConfig(), {"data.label_percent": 0})


def test_a_share_of_the_labels_takes_no_classifier_that_may_have_seen_the_others(images, taught, tmp_path):
    folder, model = taught
    for percent, is_same in ((100, True), (50, False)):
        config = config_of(
            tmp_path / str(percent), images, train_mode="finetune", checkpoint=str(folder), data__image_size=24,
            model__classifier_layer=1, data__label_percent=percent,
        )  # fmt: skip
        with open_run(config) as place:
            loaded, _, _ = models.load_model(config, builders.build_sources(config, place).train)
        assert np.array_equal(loaded.classifier.get_weights()[0], model.classifier.get_weights()[0]) == is_same


def test_lars_adapts_and_decays_a_students_classifier_so_that_a_low_temperature_makes_no_large_step(images):
    config = distill("unused", images, "unread", optimizer__base_learning_rate=0.5, optimizer__weight_decay=0.0)
    moved = []
    for scale in (1.0, 100.0):
        model = models.initial_model(config, 20, 2, teacher_width=2)
        kernel = model.classifier.kernel
        before = kernel.numpy()
        gradients = [
            scale * tf.ones_like(one) if one is kernel else tf.zeros_like(one) for one in model.trainable_variables
        ]
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        moved.append(np.linalg.norm(kernel.numpy() - before))
    rate = 0.5 * 8 / 256
    assert moved == pytest.approx([rate * 0.001 * np.linalg.norm(before)] * 2, rel=1e-3)
    decayed = override(config, {"optimizer.weight_decay": 0.1})
    assert not models.initial_model(decayed, 20, 2, teacher_width=2).classifier.losses
    supervised = override(decayed, {"train_mode": "supervised", "distill.teacher": None})
    assert models.initial_model(supervised, 20, 2).classifier.losses
