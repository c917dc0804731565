"""The projection head: its equations, and its way from training to a served model, at every depth and width."""

import numpy as np
import pytest
import tensorflow as tf
from head_oracle import draw_weights, transcribed
from tiny import augmentation_of

from tf_simclr import builders
from tf_simclr.builders.encoder import ENCODERS
from tf_simclr.export import Serving, export_encoder
from tf_simclr.keras import keras
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.runs import architecture, checkpoints, models
from tf_simclr.settings import RunConfig, override

# Depth, hidden width, width of the projections.
HEADS = [(0, None, 4), (1, None, 9), (1, 7, 4), (2, None, 3), (2, 7, 4), (3, 4, 16), (4, None, 4), (4, 7, 3)]
LABELS = np.arange(16) % 3
WIDTH = 6


@pytest.mark.parametrize("head", HEADS)
def test_a_head_equals_its_equations_and_is_made_again(head):
    num_layers, hidden_dim, output_dim = head
    layer = ProjectionHead(num_layers, output_dim, hidden_dim=hidden_dim)
    h = np.random.default_rng(0).normal(size=[16, WIDTH]).astype(np.float32)
    layer(h)
    # Hidden layers: kernel, scale, offset; the last one has no offset.
    assert len(layer.trainable_variables) == max(3 * num_layers - 1, 0)
    drawn = draw_weights(layer, np.random.default_rng(1))
    for is_training in (False, True):
        found = layer.hidden_outputs(h, training=is_training)
        expected = transcribed(drawn, h, is_training)
        assert len(found) == len(expected) == num_layers + 1
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-3)
    assert found[-1].shape[1] == (output_dim if num_layers else WIDTH)
    assert ProjectionHead.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": -1}, "num_layers must not be negative. Received: -1"),
        ({"output_dim": 0}, "output_dim must be positive. Received: 0"),
        ({"hidden_dim": 0}, "hidden_dim must be positive, or None. Received: 0"),
    ],
)
def test_a_head_rejects_sizes_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProjectionHead(**arguments)


@pytest.fixture
def tiny(monkeypatch):
    """`--encoder=tiny`, and an augmentation, that take no time to trace."""

    def build(config, **unused):
        return keras.Sequential(
            [keras.Input([16, 16, 3]), keras.layers.Conv2D(WIDTH, 5, 4), keras.layers.GlobalAveragePooling2D()]
        )

    monkeypatch.setitem(ENCODERS, "tiny", build)
    monkeypatch.setattr("tf_simclr.builders.model.build_augmentation", lambda config: augmentation_of(2))


def make(head, **changes):
    num_layers, hidden_dim, output_dim = head
    settings = {
        "data.image_size": 16, "model.encoder": "tiny", "model.num_proj_layers": num_layers,
        "model.proj_hidden_dim": hidden_dim, "model.proj_out_dim": output_dim, "train.precision": "float32",
        "optimizer.warmup_epochs": 0, "train.global_batch_size": 16, "model.classifier_layer": -1,
    }  # fmt: skip
    return override(RunConfig(), settings | {name.replace("__", "."): value for name, value in changes.items()})


def values(*layers):
    return [weight for layer in layers for weight in layer.get_weights()]


def are_equal(some, others):
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=() if head == (4, 7, 3) else pytest.mark.slow) for head in HEADS]
)
def test_a_head_trains_is_resumed_recognised_fine_tuned_and_exported(head, tiny, photos, tmp_path):
    num_layers, hidden_dim, output_dim = head
    config = make(head)
    model = builders.build_model(config, 160, 3)
    before = values(model.projection_head)
    model.train_on_batch(photos[:, :16, :16], LABELS)
    assert num_layers == 0 or not are_equal(before, values(model.projection_head))
    prefix = checkpoints.make_manager(checkpoints.make_checkpoint(model), tmp_path, 1).save(checkpoint_number=1)

    resumed = builders.build_model(config, 160, 3)
    assert checkpoints.restore_latest(checkpoints.make_checkpoint(resumed), tmp_path) == 1
    for each in (model, resumed):
        each.train_on_batch(photos[:, :16, :16], LABELS)
    assert are_equal(values(model), values(resumed)) and int(resumed.optimizer.iterations) == 2

    found = architecture.read_heads(prefix)
    expected = {"num_proj_layers": num_layers, "proj_hidden_dim": hidden_dim if num_layers > 1 else None}
    assert found == expected | {"proj_out_dim": output_dim if num_layers else 128, "num_classes": 3}

    for layer in range(num_layers + 1):
        tuned = make(head, train_mode="finetune", checkpoint=prefix, model__classifier_layer=layer)
        classifier = builders.build_model(tuned, 160, 3)
        models.start_from(prefix, classifier)
        read = classifier.projection_head.hidden_outputs(tf.zeros([2, WIDTH]), training=False)[layer]
        assert classifier.classifier.kernel.shape[0] == read.shape[1]
    classifier.train_on_batch(photos[:, :16, :16], LABELS)

    loaded = tf.saved_model.load(export_encoder(model, tmp_path / "export", serving=Serving(project=True)))
    outputs = loaded(tf.image.convert_image_dtype(photos[:4, :16, :16], tf.float32))
    hidden = model.projection_head.hidden_outputs(outputs["final_avg_pool"], training=False)
    np.testing.assert_allclose(outputs["proj_head_output"], hidden[-1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs["logits_sup"], model.classifier(hidden[-1]), rtol=1e-5, atol=1e-5)
    files = tf.stack([tf.io.encode_png(image) for image in photos[:4, :16, :16]])
    served = loaded.signatures["project"](image_bytes=files)["projection"]
    np.testing.assert_allclose(served, hidden[-1], rtol=1e-4, atol=1e-4)


def test_a_head_that_nothing_reads_may_have_another_width_than_the_checkpoints(tiny, tmp_path):
    saved = builders.build_model(make((2, 7, 4), model__classifier_layer=0), 160, 3)
    prefix = checkpoints.make_checkpoint(saved).write(str(tmp_path / "ckpt-1"))
    for head in ((2, None, 4), (2, 8, 4), (2, 7, 5), (3, 7, 4)):
        model = builders.build_model(
            make(head, train_mode="finetune", checkpoint=prefix, model__classifier_layer=0), 160, 3
        )
        before = values(model.projection_head)
        models.start_from(prefix, model)
        assert are_equal(values(model.projection_head), before) and are_equal(
            values(model.encoder), values(saved.encoder)
        )
        with pytest.raises(ValueError, match="does not fit the model: the file has .*dense"):
            models.start_from(prefix, builders.build_model(make(head), 160, 3))
    same = builders.build_model(make((2, 7, 4)), 160, 3)
    models.start_from(prefix, same)
    assert are_equal(values(same.projection_head), values(saved.projection_head))


def test_a_frozen_head_is_frozen_when_it_is_made_again():
    h = np.random.default_rng(0).normal(size=[16, WIDTH]).astype(np.float32)
    layer = ProjectionHead(2, 5)
    layer(h)
    layer.trainable = False
    again = ProjectionHead.from_config(layer.get_config())
    again(h)
    before = again.get_weights()
    again(h, training=True)
    assert not again.trainable_variables and are_equal(again.get_weights(), before)


def test_the_file_of_a_head_is_the_same_whatever_is_frozen():
    h = np.random.default_rng(0).normal(size=[16, WIDTH]).astype(np.float32)
    heads = [ProjectionHead(2, 5), ProjectionHead(2, 5, frozen_from=1)]
    outputs, store = [head(h) for head in heads], {}
    assert not np.allclose(*outputs)
    heads[0].save_own_variables(store)
    assert len(store) == len(heads[0].weights) == 9
    heads[1].load_own_variables(store)
    np.testing.assert_array_equal(heads[1](h), outputs[0])
