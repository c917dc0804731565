"""The model of a run: its initial weights follow from the seed, and are made in one place."""

import random
import types

import numpy as np
import pytest

from tf_simclr import builders
from tf_simclr.evaluation.encoders import untrained_encoder
from tf_simclr.keras import keras
from tf_simclr.runs import checkpoints, models
from tf_simclr.settings import RunConfig, override

SETTINGS = {
    "data.image_size": 16,
    "model.resnet_depth": 10,
    "model.width_multiplier": 0.05,
    "model.stem": "strided",
    "model.num_groups": 1,
    "optimizer.warmup_epochs": 0,
    "train.global_batch_size": 8,
    "train.steps": 4,
    "train.precision": "float32",
}


class Source:
    num_examples, num_classes = 40, 3


def make_config(**changes):
    return override(RunConfig(), SETTINGS | changes)


def weights(model):
    return model.encoder.get_weights() + model.projection_head.get_weights() + model.classifier.get_weights()


def are_equal(some, others):
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))


def test_a_seed_gives_the_same_weights_however_often_and_builders_seed_nothing():
    config = make_config(seed=5)
    first = weights(models.initial_model(config, 40, 3))
    expected = random.random(), np.random.random()
    keras.utils.set_random_seed(5)
    unseeded = [weights(builders.build_model(config, 40, 3)) for _ in range(2)]
    assert (random.random(), np.random.random()) == expected  # Keras draws its seeds from a generator of its own.
    assert are_equal(first, unseeded[0]) and not are_equal(first, unseeded[1])
    assert are_equal(first, weights(models.initial_model(config, 40, 3)))
    other = weights(models.initial_model(override(config, {"seed": 6}), 40, 3))
    kernels = [pair for pair in zip(first, other, strict=True) if pair[0].ndim > 1]
    assert len(kernels) > 4 and not any(np.array_equal(*pair) for pair in kernels)


def test_a_run_without_weights_is_not_evaluated(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint: train first"):
        models.load_trained_model(make_config(model_dir=str(tmp_path)), Source())


def saved(config, folder):
    """A model with weights of its own, and its checkpoint."""
    model = models.initial_model(config, Source.num_examples, Source.num_classes)
    return model, checkpoints.make_checkpoint(model).write(str(folder / "ckpt-1"))


@pytest.mark.parametrize("mode", ["eval", "export"])
def test_a_checkpoint_that_is_not_trained_keeps_its_heads(tmp_path, mode):
    settings = {"train_mode": "supervised", "model.num_proj_layers": 2, "model_dir": str(tmp_path / "run")}
    model, prefix = saved(make_config(**settings), tmp_path)
    of_training = {"checkpoint": prefix, "finetune.zero_init": True, "data.label_percent": 10}
    config = make_config(**settings | of_training | {"mode": mode, "model.num_proj_layers": 3})
    assert are_equal(weights(models.load_trained_model(config, Source())), weights(model))
    trained, *_ = models.load_model(override(config, {"mode": "train"}), Source())
    assert not trained.classifier.kernel.numpy().any() and trained.projection_head.num_layers == 3


def test_what_has_no_classifier_is_exported_as_an_encoder_alone(tmp_path):
    settings = {"model.loss": "supcon", "model.online_classifier": False, "model_dir": str(tmp_path / "run")}
    _, prefix = saved(make_config(**settings), tmp_path)
    config = make_config(**settings | {"mode": "export", "checkpoint": prefix})
    assert models.load_trained_model(config, Source()).classifier is None
    message = "The checkpoint has no classifier: use its encoder with --train_mode=pretrain. Received: "
    for mode in ("export", "eval"):
        with pytest.raises(ValueError, match=message):
            models.load_trained_model(override(config, {"train_mode": "finetune", "mode": mode}), Source())


def test_a_classifier_of_other_classes_is_not_replaced_by_random_numbers(tmp_path, caplog):
    settings = {"model_dir": str(tmp_path / "run")}
    _, prefix = saved(make_config(**settings), tmp_path)
    config = make_config(**settings | {"mode": "eval", "checkpoint": prefix})
    others = types.SimpleNamespace(num_examples=40, num_classes=5)
    assert models.load_trained_model(config, Source()).classifier.units == 3
    assert models.load_trained_model(config, others).classifier is None  # Its online classifier is of no use here.
    with pytest.raises(ValueError, match=r"The classifier of the checkpoint must be that of the model"):
        models.load_trained_model(override(config, {"train_mode": "finetune"}), others)
    settings |= {"train_mode": "supervised", "model.classifier_layer": 1}
    _, prefix = saved(make_config(**settings | {"model.proj_hidden_dim": 7}), tmp_path)
    config = make_config(**settings | {"mode": "export", "checkpoint": prefix})
    assert models.load_trained_model(config, others).classifier.kernel.shape == (7, 3)
    assert "does not tell what its classifier reads. It is taken to be layer 1 of the projection head" in caplog.text
    with pytest.raises(ValueError, match=r"say which layer it reads \(--ft_proj_selector=1\)"):
        models.load_trained_model(override(config, {"model.classifier_layer": 0}), others)


def test_a_baseline_needs_no_classes(tmp_path):
    config = make_config(**{"model.loss": "supcon", "model.online_classifier": False, "mode": "train_then_eval"})
    model = models.initial_model(config, Source.num_examples, Source.num_classes)
    assert untrained_encoder(config, model, Source.num_examples).build().output_shape[-1] > 0
