"""Weights of the reference: read, run, and trained on, number for number."""

import logging
import re
import types

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.keras import keras
from tf_simclr.models.convolution import Conv2D
from tf_simclr.models.heads import ProjectionHead, linear_classifier
from tf_simclr.models.momentum import MomentumSimCLR
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import LARS
from tf_simclr.runs import architecture, weights
from tf_simclr.runs.models import start_from
from tf_simclr.schedules import WarmupCosine

SK = {"depth": 50, "width_multiplier": 0.0625, "stem": "imagenet", "num_groups": 2, "sk_ratio": 0.0625}
SE = {"depth": 18, "width_multiplier": 0.1, "stem": "cifar", "se_ratio": 0.25}
TINY = {"depth": 10, "width_multiplier": 0.05, "stem": "cifar"}


@pytest.fixture(scope="module")
def export(shared_dir):
    return shared_dir / "reference_export" / "r18_cifar"


@pytest.fixture(scope="module")
def outputs(golden_dir):
    return np.load(golden_dir / "reference_export_outputs.npz")


def make_model(arguments, head=(2, 5), num_classes=3, hidden_dim=None):
    """A small model; no two of its variables have the same values."""
    classifier = None if num_classes is None else linear_classifier(num_classes)
    made = ProjectionHead(*head, hidden_dim=hidden_dim)
    model = SimCLR(resnet(**arguments), made, image_size=32, online_classifier=classifier)
    rng = np.random.default_rng(len(model.encoder.variables))
    for variable in variables(model):
        variable.assign(rng.normal(size=variable.shape))
    return model


@pytest.fixture(scope="module")
def tiny():
    """A model that the tests leave as it is."""
    return make_model(TINY)


def variables(model):
    parts = (model.encoder, model.projection_head, model.classifier)
    return [variable for part in parts if part is not None for variable in part.variables]


def assert_same_weights(model, other):
    for variable, expected in zip(variables(model), variables(other), strict=True):
        np.testing.assert_array_equal(variable.numpy(), expected.numpy(), err_msg=variable.name)


def save(model, prefix, optimizer=None):
    return tf.train.Checkpoint(model=model, optimizer=optimizer or LARS(0.1)).write(str(prefix))


def test_exports_of_the_reference_return_what_they_did(export, outputs):
    model = architecture.load_reference(export)
    found = model.encoder.endpoints(outputs["images_uint8"] / np.float32(255))
    hidden = model.projection_head.hidden_outputs(found["final_avg_pool"], training=False)
    found |= {"proj_head_input": hidden[0], "proj_head_output": hidden[-1], "logits_sup": model.classify(hidden[0])}
    names = [name for name in outputs.files if "/" in name]
    assert len(names) == 10
    for name in names:
        output = found[name.partition("/")[2]].numpy()
        output = output.mean((1, 2)) if output.ndim == 4 else output
        np.testing.assert_allclose(output, outputs[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_first_layers_of_an_export_return_what_they_did(golden_dir, outputs, tmp_path):
    stored = np.load(golden_dir / "reference_export_start.npz")
    prefix = str(tmp_path / "start")
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=stored.files, shape_and_slices=[""] * len(stored.files), tensors=[*stored.values()]
    )
    encoder = architecture.load_reference(prefix).encoder
    found = encoder.endpoints(outputs["images_uint8"] / np.float32(255))
    for name in ("initial_conv", "initial_max_pool", "block_group1"):
        output = found[name].numpy().mean((1, 2))
        np.testing.assert_allclose(output, outputs[f"out_mean/{name}"], rtol=1e-4, atol=1e-4, err_msg=name)
    assert len(encoder.variables) == len(stored.files)


def test_every_variable_of_an_export_has_its_place(golden_dir):
    golden = np.load(golden_dir / "trajectory.npz")
    names = weights.arrange(key[5:-2] for key in golden.files if key.startswith("norm/"))
    model = make_model({"depth": 18, "width_multiplier": 0.05, "stem": "cifar"}, head=(3, 5))
    assert len(names) == len(variables(model)) == 121
    assert names.keys() == variables_by_place(model).keys()


class GivenViews:
    """In place of an augmentation: the two views of every image are given, [B, 2, S, S, 3]."""

    image_size = 32
    num_views = 2

    def check_spec(self, images):
        assert images.shape[1:] == (2, 32, 32, 3)

    def __call__(self, images, step, **kwargs):
        return tf.concat(tf.unstack(tf.cast(images, tf.float32) / 255, axis=1), axis=0)


def variables_by_place(model):
    found = {}
    for part in ("encoder", "projection_head", "classifier"):
        by_name = {variable.name.removesuffix(":0"): variable for variable in getattr(model, part).variables}
        found |= {place: by_name[name] for place, name in weights.arrange(by_name, part).items()}
    return found


@pytest.mark.slow
def test_training_goes_on_as_in_the_reference(golden_dir, export, outputs, monkeypatch):
    golden = np.load(golden_dir / "trajectory.npz")
    # The operations of the reference. Matrix products round otherwise, which grows from step to step.
    monkeypatch.setattr(Conv2D, "_pays", lambda *_: False)
    model = SimCLR(
        resnet(18, 1, "cifar", synchronized=True),
        ProjectionHead(3, 128, synchronized=True),
        image_size=32,
        temperature=0.5,
        objective_weight=2.0,
        augmentation=GivenViews(),
        online_classifier=linear_classifier(10, l2=1e-4),
    )
    weights.load_weights(export, model.encoder, model.projection_head, model.classifier)
    before = {place: variable.numpy() for place, variable in variables_by_place(model).items()}
    optimizer = LARS(WarmupCosine(32 / 256, total_steps=21, warmup_steps=4), weight_decay=1e-4)
    optimizer.exclude_from_adaptation(model.classifier.variables)
    model.compile(optimizer=optimizer)

    views = np.stack([golden["view1_uint8"], golden["view2_uint8"]], axis=1)
    rows = []
    for _ in range(6):
        decay = sum(model.losses).numpy()
        metrics = model.train_on_batch(views, golden["labels"], reset_metrics=True, return_dict=True)
        rows.append([metrics["learning_rate"], 2 * metrics["loss"], metrics["classifier_loss"], decay])
    np.testing.assert_allclose(rows, golden["rows_lr_contrast_supervised_decay"], rtol=1e-4)

    names = weights.arrange(key[5:-2] for key in golden.files if key.startswith("norm/"))
    after = {place: variable.numpy() for place, variable in variables_by_place(model).items()}
    assert names.keys() == after.keys()
    for place, name in names.items():
        # LARS changes the norms of kernels by 2e-4. Scales and offsets of batch norm get sums that nearly cancel,
        # where rounding shows: the same steps in float64 take their norms up to 1e-2 away from the reference's.
        rtol, atol = {"kernel": (5e-6, 0), "gamma": (1e-3, 1e-4), "beta": (1e-3, 1e-4)}.get(place[3], (1e-4, 0))
        norm = np.linalg.norm(after[place])
        np.testing.assert_allclose(norm, golden[f"norm/{name}:0"], rtol=rtol, atol=atol, err_msg=name)
        if place[3] in ("moving_mean", "moving_variance", "bias"):
            expected = golden[f"value/{name}:0"]
            error, change = np.linalg.norm(after[place] - expected), np.linalg.norm(expected - before[place])
            assert error <= 1e-3 * change, f"{name}: {error} of {change}"
    features = model(outputs["images_uint8"] / np.float32(255), training=False)
    np.testing.assert_allclose(features, golden["final_avg_pool_after"], rtol=1e-3, atol=1e-3)


WIDENED = {
    "widened selective kernels": SK | {"final_width": 9},
    "widened squeeze and excitation": SE | {"final_width": 9},
    "widened bottlenecks": {
        "depth": 50,
        "width_multiplier": 0.0625,
        "stem": "cifar",
        "num_groups": 1,
        "final_width": 9,
    },
}


@pytest.mark.parametrize(
    "arguments", [SK, SE, *WIDENED.values()], ids=["selective kernels", "squeeze and excitation", *WIDENED]
)
def test_own_checkpoints_are_read_back(arguments, tmp_path):
    hidden_dim = 7 if arguments is SK else None
    saved = make_model(arguments, hidden_dim=hidden_dim)
    # One optimizer has its variables in a list, the other, like the reference's, in slots of the weights.
    optimizer = LARS(0.1) if arguments is SK else keras.optimizers.legacy.SGD(0.1, momentum=0.9)
    optimizer.apply_gradients([(tf.zeros_like(variable), variable) for variable in saved.trainable_variables])
    path = save(saved, tmp_path / "ckpt", optimizer)

    found = architecture.read_architecture(path)
    defaults = {"sk_ratio": None, "se_ratio": None, "num_groups": 4, "final_width": None}
    expected = {"resnet_depth": arguments["depth"]} | defaults | arguments
    expected |= {"num_proj_layers": 2, "proj_hidden_dim": hidden_dim, "proj_out_dim": 5, "num_classes": 3}
    del expected["depth"]
    assert found == expected | {"width_multiplier": pytest.approx(expected["width_multiplier"], rel=0.05)}
    assert_same_weights(architecture.load_reference(path), saved)


def checkpoint_of_tensorflow_1(saved, prefix, more):
    """Writes a model, and more variables, under the names of the reference in TensorFlow 1; returns them."""
    names = {}
    for kind, layer_type in (("conv2d", keras.layers.Conv2D), ("batch_normalization", keras.layers.BatchNormalization)):
        layers = [layer for layer in saved.encoder.submodules if isinstance(layer, layer_type)]
        layers.sort(key=lambda layer: int(re.search(r"\d*$", layer.name)[0] or 0))
        names |= {f"base_model/{kind}_{number}".removesuffix("_0"): layer for number, layer in enumerate(layers)}
    for number, (dense, batch_norm) in enumerate(saved.projection_head._layers_in_order):
        names |= {f"head_contrastive/nl_{number}/dense": dense}
        names |= {f"head_contrastive/nl_{number}/batch_normalization": batch_norm}
    names["head_supervised/linear_layer/dense"] = saved.classifier
    values = {
        f"{scope}/{variable.name.rpartition('/')[2].removesuffix(':0')}": variable.numpy()
        for scope, layer in names.items()
        for variable in layer.variables
    }
    assert len(values) == len(variables(saved))
    values |= more(values)
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * len(values), tensors=list(values.values())
    )
    return values


def test_checkpoints_of_tensorflow_1_are_read(tiny, tmp_path, caplog):
    prefix = str(tmp_path / "model.ckpt-7")
    more = {"global_step": np.int64(7), "ema_model/base_model/conv2d/kernel": np.zeros([3, 3, 3, 3], np.float32)}
    more |= {"memory/keys": np.zeros([2, 2], np.float32)}

    def with_momentum(values):
        return more | {f"{name}/Momentum": np.zeros_like(value) for name, value in values.items()}

    checkpoint_of_tensorflow_1(tiny, prefix, with_momentum)
    with caplog.at_level(logging.INFO, logger="absl"):
        assert_same_weights(architecture.load_reference(prefix), tiny)
    assert "Skipped: the 1 variables of the momentum encoder" in caplog.text
    assert "Skipped: the 1 variables of the memory" in caplog.text


@pytest.mark.parametrize("memory_size", [4, 5])
@pytest.mark.parametrize("has_average", [True, False])
def test_the_momentum_encoder_of_a_checkpoint_is_read_by_a_model_that_has_one(
    tiny, tmp_path, caplog, has_average, memory_size
):
    queue = np.random.default_rng(5).normal(size=[4, 5]).astype(np.float32)

    def with_averages(values):
        of_parts = {name: value for name, value in values.items() if not name.startswith("head_supervised")}
        averages = {f"ema_model/{name}": 2 * value + 1 for name, value in of_parts.items()} if has_average else {}
        return averages | {"memory/queue": queue, "memory/next": np.int64(3)}

    checkpoint_of_tensorflow_1(tiny, str(tmp_path / "ckpt"), with_averages)
    model = MomentumSimCLR(resnet(**TINY), ProjectionHead(2, 5), image_size=32, memory_size=memory_size)
    random_queue = model.memory.numpy()
    with caplog.at_level(logging.INFO, logger="absl"):
        start_from(str(tmp_path / "ckpt"), model)
    for variable, average in zip(model.followed, model.momentum_weights, strict=True):
        expected = 2 * variable.numpy() + 1 if has_average else variable.numpy()
        np.testing.assert_array_equal(average, expected, err_msg=variable.name)
    np.testing.assert_array_equal(model.memory, queue if memory_size == 4 else random_queue)
    assert ("Loaded: the 1 variables of the memory" in caplog.text) == (memory_size == 4)
    assert "Skipped: the 1 variables of the memory" in caplog.text or memory_size == 5
    count = len(model.momentum_weights) - 9  # of the head
    assert (f"Loaded: the {count} variables of the momentum encoder" in caplog.text) == has_average


def test_a_momentum_encoder_that_does_not_fit_is_listed(tiny, tmp_path):
    more = {"ema_model/base_model/conv2d/kernel": np.zeros([5, 5, 3, 3], np.float32)}
    checkpoint_of_tensorflow_1(tiny, str(tmp_path / "ckpt"), lambda values: more)
    model = MomentumSimCLR(resnet(**TINY), ProjectionHead(2, 5), image_size=32, memory_size=4)
    with pytest.raises(
        ValueError, match=r"has ema_model/base_model/conv2d/kernel \(5, 5, 3, 3\), the model has ema_mod"
    ):
        start_from(str(tmp_path / "ckpt"), model)


def test_our_own_momentum_encoder_is_read_or_skipped(tmp_path):
    model = MomentumSimCLR(resnet(**TINY), ProjectionHead(2, 5), image_size=32, memory_size=4)
    for variable in (*variables(model), *model.momentum_weights, model.memory):
        variable.assign(np.random.default_rng(len(variable.name)).normal(size=variable.shape))
    path = save(model, tmp_path / "ckpt")
    assert_same_weights(architecture.load_reference(path), model)
    again = MomentumSimCLR(resnet(**TINY), ProjectionHead(2, 5), image_size=32, memory_size=4)
    start_from(path, again)
    assert_same_weights(again, model)
    for mine, theirs in zip(
        (*again.momentum_weights, again.memory), (*model.momentum_weights, model.memory), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def encoder_with_names_of_other_parts():
    """Two layers and a model inside of it are called as a moving average, a memory and a head."""

    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.scale = self.add_weight("scale", [4])

        def call(self, features, training=None):
            return features * self.scale

    inputs = keras.Input([32, 32, 3])
    features = keras.layers.Conv2D(3, 3, name="memory_conv")(inputs)
    features = keras.layers.Conv2D(4, 3, name="ema_conv")(features)
    features = Scaled()(keras.layers.GlobalAveragePooling2D(name="teacher_map")(features))
    return keras.Model(inputs, ProjectionHead(1, 4)(features))  # a head as a layer of the encoder


def test_names_of_other_parts_in_an_encoder_are_the_encoders(tmp_path):
    saved, again = (
        MomentumSimCLR(encoder_with_names_of_other_parts(), ProjectionHead(2, 5), image_size=32, memory_size=4)
        for _ in range(2)
    )
    for number, variable in enumerate((*variables(saved), *saved.momentum_weights, saved.memory)):
        variable.assign(np.random.default_rng(number).normal(size=variable.shape))
    path = save(saved, tmp_path / "ckpt")
    start_from(path, again)
    assert_same_weights(again, saved)
    for mine, theirs in zip(
        (*again.momentum_weights, again.memory), (*saved.momentum_weights, saved.memory), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs, err_msg=theirs.name)
    digests = [weights.digest(path)]
    for variable in saved.encoder.variables:
        variable.assign_add(tf.ones_like(variable))
        digests.append(weights.digest(save(saved, tmp_path / "ckpt")))
    assert len(set(digests)) == len(saved.encoder.variables) + 1


def test_exports_of_ours_are_read(tiny, tmp_path):
    encoder = tiny.encoder
    module = tf.Module()
    module.model_variables = encoder.variables
    tf.saved_model.save(module, str(tmp_path / "1"))
    loaded = architecture.load_reference(tmp_path / "1")
    assert (loaded.projection_head.num_layers, loaded.classifier) == (0, None)
    for variable, expected in zip(loaded.encoder.variables, encoder.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), expected.numpy())


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tiny, tmp_path):
    path = save(tiny, tmp_path / "ckpt")
    wider = make_model(TINY, num_classes=4)
    before = [variable.numpy() for variable in variables(wider)]
    with pytest.raises(ValueError, match=r"has .*bias \(3,\), the model has .*bias:0 \(4,\); .*kernel") as error:
        weights.load_weights(path, wider.encoder, wider.projection_head, wider.classifier)
    assert str(error.value).count("the model has") == 2  # kernel and bias, no more
    for variable, value in zip(variables(wider), before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    weights.load_weights(path, wider.encoder, wider.projection_head)
    with pytest.raises(ValueError, match=r"the file has nothing, the model has .*dense_\d+/kernel:0 \(26, 5\)"):
        longer = ProjectionHead(3, 5)
        longer(tf.zeros([1, 26]))
        weights.load_weights(path, wider.encoder, longer)

    deeper = resnet(18, 0.05, "cifar")
    with pytest.raises(ValueError, match="the file has nothing") as error:
        weights.load_weights(path, deeper)
    # Four blocks more, each with two convolutions and two batch norms of four variables.
    assert str(error.value).count("the file has nothing") == 4 * (2 + 2 * 4)

    other = types.SimpleNamespace(variables=[*deeper.variables, tf.Variable(0.0, name="scale/alpha")])
    with pytest.raises(ValueError, match=r"the file has nothing, the model has scale/alpha:0 \(\)"):
        weights.load_weights(save(deeper, tmp_path / "deeper"), other)


def test_checkpoints_are_found(tmp_path):
    checkpoint = tf.train.Checkpoint(step=tf.Variable(1))
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path / "run" / "checkpoints"), max_to_keep=2)
    paths = [manager.save(), manager.save()]
    assert weights.find_checkpoint(paths[0]) == paths[0]
    assert weights.find_checkpoint(tmp_path / "run" / "checkpoints") == paths[1]
    assert weights.find_checkpoint(tmp_path / "run") == paths[1]
    # TensorFlow's own list may be out of date, or may not have been copied.
    (tmp_path / "run" / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "ckpt-1"')
    assert weights.find_checkpoint(tmp_path / "run") == paths[1]
    (tmp_path / "run" / "checkpoints" / "checkpoint").unlink()
    assert weights.find_checkpoint(tmp_path / "run" / "checkpoints") == paths[1]
    tf.saved_model.save(tf.Module(), str(tmp_path / "export"))
    assert weights.find_checkpoint(tmp_path / "export") == str(tmp_path / "export" / "variables" / "variables")
    for nothing in ("", "run/checkpoints/ckpt-3"):
        with pytest.raises(FileNotFoundError, match=f"Received: {tmp_path}"):
            weights.find_checkpoint(tmp_path / nothing)

    with pytest.raises(ValueError, match="Cannot recognise a ResNet with groups of"):
        architecture.load_reference(paths[0])
    (tmp_path / "broken.index").write_text("no checkpoint")
    with pytest.raises(ValueError, match="TensorFlow cannot read the checkpoint"):
        architecture.load_reference(tmp_path / "broken")
