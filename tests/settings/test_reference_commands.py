"""The commands of the reference's README, word for word, on tiny data sets of the same names."""

import json
import os
import pathlib
import shlex
import string

import numpy as np
import pytest
import tensorflow as tf
from command import parse

import run

NUM_IMAGES = 12

PRETRAIN_CIFAR10 = """
python run.py --train_mode=pretrain \
  --train_batch_size=512 --train_epochs=1000 \
  --learning_rate=1.0 --weight_decay=1e-4 --temperature=0.5 \
  --dataset=cifar10 --image_size=32 --eval_split=test --resnet_depth=18 \
  --use_blur=False --color_jitter_strength=0.5 \
  --model_dir=/tmp/simclr_test --use_tpu=False
"""
LINEAR_EVALUATION_CIFAR10 = """
python run.py --mode=train_then_eval --train_mode=finetune \
  --fine_tune_after_block=4 --zero_init_logits_layer=True \
  --variable_schema='(?!global_step|(?:.*/|^)Momentum|head)' \
  --global_bn=False --optimizer=momentum --learning_rate=0.1 --weight_decay=0.0 \
  --train_epochs=100 --train_batch_size=512 --warmup_epochs=0 \
  --dataset=cifar10 --image_size=32 --eval_split=test --resnet_depth=18 \
  --checkpoint=/tmp/simclr_test --model_dir=/tmp/simclr_test_ft --use_tpu=False
"""
PRETRAIN_IMAGENET = """
python run.py --train_mode=pretrain \
  --train_batch_size=4096 --train_epochs=100 --temperature=0.1 \
  --learning_rate=0.075 --learning_rate_scaling=sqrt --weight_decay=1e-4 \
  --dataset=imagenet2012 --image_size=224 --eval_split=validation \
  --data_dir=$DATA_DIR --model_dir=$MODEL_DIR \
  --use_tpu=True --tpu_name=$TPU_NAME --train_summary_steps=0
"""
LINEAR_EVALUATION_IMAGENET = """
python run.py --mode=train_then_eval --train_mode=finetune \
  --fine_tune_after_block=4 --zero_init_logits_layer=True \
  --variable_schema='(?!global_step|(?:.*/|^)Momentum|head)' \
  --global_bn=False --optimizer=momentum --learning_rate=0.1 --weight_decay=1e-6 \
  --train_epochs=90 --train_batch_size=4096 --warmup_epochs=0 \
  --dataset=imagenet2012 --image_size=224 --eval_split=validation \
  --data_dir=$DATA_DIR --model_dir=$MODEL_DIR_LINEAR --checkpoint=$CHKPT_DIR \
  --use_tpu=True --tpu_name=$TPU_NAME --train_summary_steps=0
"""
FINETUNE_IMAGENET = """
python run.py --mode=train_then_eval --train_mode=finetune \
  --fine_tune_after_block=-1 --zero_init_logits_layer=True \
  --variable_schema='(?!global_step|(?:.*/|^)Momentum|head_supervised)' \
  --global_bn=True --optimizer=lars --learning_rate=0.005 \
  --learning_rate_scaling=sqrt --weight_decay=0 \
  --train_epochs=60 --train_batch_size=1024 --warmup_epochs=0 \
  --dataset=imagenet2012_subset/$PART --image_size=224 --eval_split=validation \
  --data_dir=$DATA_DIR --model_dir=$MODEL_DIR_FINETUNE --checkpoint=$CHKPT_DIR \
  --use_tpu=True --tpu_name=$TPU_NAME --train_summary_steps=0 \
  --num_proj_layers=3 --ft_proj_selector=1
"""
# What makes the commands fit a test: no TPU, a thin network, small batches, two steps. (Below four channels the
# convolutions of TensorFlow have been seen to corrupt memory.)
SMALLER = {
    "strategy": "default",
    "model.width_multiplier": 0.0625,
    "train.global_batch_size": 4,
    "train.steps": 2,
    "optimizer.warmup_epochs": 0,
    "train.precision": "float32",
}
SMALLER_IMAGENET = {"model.resnet_depth": 18, "data.image_size": 64}


def pixels(index: int, size: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, [size, size, 3]).astype(np.uint8)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """Folders for the commands' variables; DATA_DIR holds cifar10, imagenet2012 and imagenet2012_subset."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("reference")
    data_dir = str(folder / "data")
    for name, splits, size in [
        ("cifar10", ("train", "test"), 32),
        ("imagenet2012", ("train", "validation"), 60),
        ("imagenet2012_subset/1pct", ("train", "validation"), 60),
        ("imagenet2012_subset/10pct", ("train", "validation"), 60),
    ]:
        _prepare(tfds, name, splits, size, data_dir)
    return {
        "DATA_DIR": data_dir,
        "MODEL_DIR": str(folder / "imagenet"),
        "MODEL_DIR_LINEAR": str(folder / "imagenet_linear"),
        "CHKPT_DIR": str(folder / "imagenet"),
        "TPU_NAME": "none",
        "/tmp/simclr_test": str(folder / "cifar10"),
    }


def _prepare(tfds, name, splits, size, data_dir):
    """Writes a few images as TFDS keeps the data set of this name."""
    base, _, builder_config = name.partition("/")
    original = tfds.builder_cls(base)

    with tfds.core.registered.skip_registration():

        class Tiny(original):
            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(number) for number, split in enumerate(splits)}

            def _generate_examples(self, number):
                for i in range(NUM_IMAGES):
                    example = {"image": pixels(100 * number + i, size), "label": i % 3}
                    names = {"id": f"{i}", "file_name": f"{i}.jpeg"}
                    yield i, example | {key: names[key] for key in names if key in self.info.features}

    Tiny.name = original.name
    Tiny(config=builder_config or None, data_dir=data_dir).download_and_prepare()


def follow(command: str, places: dict[str, str]) -> pathlib.Path:
    """Runs a command, made smaller; returns the folder of the run."""
    for name in ("/tmp/simclr_test",):
        command = command.replace(name, places[name])
    words = shlex.split(string.Template(command).substitute(places))
    assert words[:2] == ["python", "run.py"]
    is_cifar10 = "--dataset=cifar10" in words
    changes = SMALLER if is_cifar10 else SMALLER | SMALLER_IMAGENET
    smaller = [f"--set={field}={value}" for field, value in changes.items()]
    if is_cifar10:
        smaller.append(f"--data_dir={places['DATA_DIR']}")
    settings = parse(*words[2:], *smaller)
    run.run(settings)
    return pathlib.Path(settings.model_dir)


@pytest.fixture(scope="module")
def pretrained(places) -> pathlib.Path:
    return follow(PRETRAIN_IMAGENET, places)


def check_evaluated(folder: pathlib.Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert result["global_step"] == 2
    for k in (1, 5):
        assert 0 <= result[f"eval/label_top_{k}_accuracy"] <= 1
    assert result["eval/regularization_loss"] >= 0
    assert (folder / "saved_model" / "2" / "saved_model.pb").is_file()


@pytest.mark.slow
def test_cifar10_pretraining_then_linear_evaluation(places):
    folder = follow(PRETRAIN_CIFAR10, places)
    assert (folder / "saved_model" / "2" / "saved_model.pb").is_file()
    frozen = follow(LINEAR_EVALUATION_CIFAR10, places)
    check_evaluated(frozen)
    before, after = (encoder_weights(path) for path in (folder, frozen))
    assert len(before) == 105  # ResNet-18: 21 convolutions, 21 batch norms
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_imagenet_linear_evaluation(places, pretrained):
    check_evaluated(follow(LINEAR_EVALUATION_IMAGENET, places))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["1pct", "10pct"])
def test_imagenet_finetuning_from_a_layer_of_the_head(places, pretrained, part):
    names = {"PART": part, "MODEL_DIR_FINETUNE": f"{pretrained}_{part}"}
    folder = follow(FINETUNE_IMAGENET, places | names)
    check_evaluated(folder)
    assert any(np.any(old != new) for old, new in zip(*map(encoder_weights, (pretrained, folder)), strict=True))


def encoder_weights(folder: pathlib.Path) -> list[np.ndarray]:
    checkpoint = tf.train.latest_checkpoint(os.fspath(folder / "checkpoints"))
    names = sorted(
        name
        for name, _ in tf.train.list_variables(checkpoint)
        if name.startswith("model/encoder/") and ".OPTIMIZER_SLOT" not in name and name.endswith("VARIABLE_VALUE")
    )
    return [tf.train.load_variable(checkpoint, name) for name in names]
