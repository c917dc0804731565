"""Runs with many views and small ones, on images of several sizes: how they resume, what they write and refuse."""

import numpy as np
import pytest
import tensorflow as tf
from command import parse

from tf_simclr import builders
from tf_simclr.augment import WHOLE_IMAGE, RandomCrop
from tf_simclr.check import memory, sheet
from tf_simclr.data import batches
from tf_simclr.data.sources import ArraySource
from tf_simclr.keras import keras
from tf_simclr.metrics import diagnosis
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.simclr import SimCLR
from tf_simclr.runs import models
from tf_simclr.runs.folder import open_run
from tf_simclr.settings import RunConfig, override
from tf_simclr.training import callbacks, held_out
from tf_simclr.training.meter import Meter
from tf_simclr.training.train import train

SETTINGS = {
    "mode": "train",
    "data.dataset": "folder",
    "data.image_size": 16,
    "augmentation.num_views": 3,
    "augmentation.num_small_views": 2,
    "augmentation.blur_probability": 0.0,
    "augmentation.color_jitter_strength": 0.0,
    "model.resnet_depth": 10,
    "model.width_multiplier": 0.1,
    "model.stem": "strided",
    "model.num_groups": 1,
    "optimizer.warmup_epochs": 0.5,
    "train.global_batch_size": 8,
    "train.steps": 8,
    "train.checkpoint_steps": 5,
    "train.log_every_steps": 3,
    "train.precision": "float32",
}


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory):
    """Sixteen images of two classes and of several sizes."""
    folder = tmp_path_factory.mktemp("images")
    for index, photo in enumerate(photos):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tf.io.encode_png(photo[: 16 + index]).numpy())
    return folder


def make_config(model_dir, data_dir, **changes):
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return override(RunConfig(), SETTINGS | {"model_dir": str(model_dir), "data.data_dir": str(data_dir)} | changes)


def run(config):
    """Trains; returns the weights and the state of the optimizer, and the folder."""
    with open_run(config) as folder:
        model = train(config, builders.build_sources(config, folder), folder)
    return [np.asarray(one) for one in (*model.encoder.variables, *model.optimizer.variables)], folder


@pytest.mark.slow
@pytest.mark.usefixtures("quick_decoder")
@pytest.mark.parametrize("microbatch_size", [None, 3])
def test_an_interrupted_run_resumes_as_if_nothing_had_happened(folder, tmp_path, monkeypatch, microbatch_size):
    changes = {"train__microbatch_size": microbatch_size}
    uninterrupted, one = run(make_config(tmp_path / "a", folder, **changes))
    specs, make_dataset = [], batches.train_dataset

    def interrupted(*args, **kwargs):
        dataset = make_dataset(*args, **kwargs).take(7)
        specs.append({name: spec.shape for name, spec in dataset.element_spec[0].items()})
        return dataset

    with monkeypatch.context() as patch:
        patch.setattr(batches, "train_dataset", interrupted)
        run(make_config(tmp_path / "b", folder, **changes))
    assert specs == [{"images": [8, 3, 16, 16, 3], "small_images": [8, 2, 8, 8, 3], "keys": [8, 2]}]
    assert not (tmp_path / "b" / "checkpoints" / "ckpt-8.index").exists()
    resumed, other = run(make_config(tmp_path / "b", folder, **changes))
    for value, expected in zip(resumed, uninterrupted, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    sheet_of_views = tf.io.decode_png((one / "views.png").read_bytes()).numpy()
    assert sheet_of_views.shape == (5 * 16, 8 * 16, 3)
    small = sheet_of_views[3 * 16 : 4 * 16, :16]
    assert np.all(small[:4] == 0) and np.all(small[:, 12:] == 0) and np.any(small[4:12, 4:12])
    with pytest.raises(ValueError, match="augmentation.num_views was 3, is 2"):
        run(make_config(tmp_path / "b", folder, augmentation__num_views=2, **changes))


def test_settings_become_views(photos):
    config = override(RunConfig(), SETTINGS | {"augmentation.small_view_pairs": "all", "data.data_dir": "x"})
    model = models.initial_model(config, 16, 2)
    assert (model.augmentation.num_views, model.small_views.num_views, model.pairs.num_candidate_views) == (3, 2, 5)
    assert model.small_views.image_size == 8
    crops = [branch[0].area for branch in (*model.augmentation.branches, *model.small_views.branches)]
    assert crops == [(0.08, 1.0)] * 3 + [(0.05, 0.4)] * 2
    assert model.small_views.branches[0][1:] == model.augmentation.branches[0][1:]
    plain = models.initial_model(override(config, {"augmentation.num_small_views": 0}), 16, 2)
    np.testing.assert_array_equal(plain.make_views(photos), model.make_views(photos))
    supervised = override(config, {"train_mode": "supervised"})
    assert builders.build_small_views(supervised) is None


@pytest.mark.parametrize(
    "arguments", [["--one_branch"], ["--operators=flip,grayscale"], ["--operators=grayscale", "--one_branch"]]
)
def test_small_views_are_small_crops_also_where_the_others_are_the_whole_image(arguments):
    settings = ["--set=augmentation.crop_sampler=uniform_area", "--set=augmentation.small_crop_max_area=0.09"]
    config = parse("--dataset=shapes", "--image_size=32", "--num_small_views=2", *arguments, *settings)
    large, small = builders.build_augmentation(config).branches, builders.build_small_views(config).branches
    assert WHOLE_IMAGE in [branch[0] for branch in large]
    assert [branch[0] for branch in small] == [RandomCrop("uniform_area", (0.05, 0.09), (3 / 4, 4 / 3))] * 2
    assert [branch[1:] for branch in small] == [branch[1:] for branch in large]


def test_health_knows_what_training_compares(photos):
    for pairs, candidates in (("large", 3 * 8 - 1), ("all", 5 * 8 - 1)):
        config = override(RunConfig(), SETTINGS | {"augmentation.small_view_pairs": pairs, "data.data_dir": "x"})
        model = models.initial_model(config, 16, 2)
        sample = held_out.draw(ArraySource(photos), model.augmentation, 16, num_viewed=8)
        assert sample.views.shape == (3, 8, 16, 16, 3)
        line = Meter(model, sample, global_batch_size=8, encoded_at_once=8)(with_knn=False)
        assert line["num_small_views"] == 2 and line["contrastive_candidates"] == candidates
    # Small views find their image less often, which is no sign of duplicates.
    well = {"contrastive_top_1_accuracy": 0.9, "negative_similarity": 0.1, "positive_similarity": 0.9}
    healthy = {**line, "step": 1, **well}
    found = [{"step": 1, "loss": 1.0, "contrastive_top_1_accuracy": 0.5, "contrastive_entropy": 1.0}] * 2
    names = [
        [finding.name for finding in diagnosis.diagnose([one] * 2, found)]
        for one in (healthy, healthy | {"num_small_views": 0})
    ]
    assert "duplicates" in names[1] and "duplicates" not in names[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_views=1"], "--num_views: augmentation.num_views must be from 2 to 128. Received: 1"),
        (["--num_small_views=129"], "--num_small_views: augmentation.num_small_views must be from 0 to 128"),
        (["--small_view_size=0"], "--small_view_size: augmentation.small_view_size must be from 1 to 10000"),
        (["--set=augmentation.small_view_pairs=some"], "must be one of large, all. Received: some"),
        (
            ["--set=augmentation.small_crop_min_area=0.5"],
            "small_crop_min_area must be at most augmentation.small_crop_max_area: use "
            "--set=augmentation.small_crop_min_area=0.4. Received: 0.5 and 0.4",
        ),
    ],
)
def test_what_the_command_line_refuses(arguments, message):
    with pytest.raises(ValueError) as error:
        parse("--dataset=shapes", *arguments)
    assert message in str(error.value)


def test_small_views_that_the_encoder_or_the_sampler_does_not_take(tmp_path):
    small = ["--dataset=shapes", "--image_size=32", "--num_small_views=2", f"--model_dir={tmp_path}"]
    config = parse(*small, "--small_view_size=7", "--stem=strided")
    with pytest.raises(ValueError, match="factor of 16: use --small_view_size=16. Received: small_view_size 7"):
        builders.build_encoder(config)
    config = parse(*small, "--set=augmentation.small_crop_max_area=0.07")
    with pytest.raises(ValueError, match="small_crop_max_area must be at least 0.1, .*=uniform_area. Received: 0.07"):
        builders.build_small_views(config)


def test_memory_and_sheets_know_the_small_views(photos, tmp_path):
    layers = [keras.layers.Conv2D(5, 3, padding="same", use_bias=False), keras.layers.GlobalAveragePooling2D()]
    encoder = keras.Sequential([keras.Input([None, None, 3]), *layers])
    config = override(RunConfig(), SETTINGS | {"data.data_dir": "x"})
    augmentation, small_views = builders.build_augmentation(config), builders.build_small_views(config)
    options = {"image_size": 16, "augmentation": augmentation}
    with_small = SimCLR(encoder, ProjectionHead(0), small_views=small_views, **options)
    plain = SimCLR(encoder, ProjectionHead(0), **options)
    for model in (with_small, plain):
        model.compile(keras.optimizers.SGD())
    found, without = (memory.estimate(model, images_at_once=10).activations for model in (with_small, plain))
    assert found == without + 10 * 2 * memory.bytes_per_view(encoder, 8) > without
    samples = ArraySource(photos).sample(2)
    views = sheet.make_views(samples[0], small_views, True)
    assert views.shape == (2, 8, 8, 3)
    sheet.write_sheet(samples, augmentation, True, tmp_path / "sheet.png", small_views)
    sheet.write_sheet(samples, augmentation, True, tmp_path / "without.png")
    wide, narrow = (tf.io.decode_png((tmp_path / name).read_bytes()).shape for name in ("sheet.png", "without.png"))
    assert wide[1] > 1.4 * narrow[1]


def test_a_sheet_of_one_size_stays_as_it_was(photos, tmp_path):
    config = override(RunConfig(), SETTINGS | {"data.data_dir": "x", "augmentation.num_small_views": 0})
    model = models.initial_model(config, 16, 2)
    callbacks.write_view_sheet(model, model.with_keys(tf.constant(photos)), tmp_path)
    shown = tf.io.decode_png((tmp_path / "views.png").read_bytes()).numpy()
    expected = np.asarray(model.make_views(photos)).reshape(3, 16, 16, 16, 3).transpose(0, 2, 1, 3, 4)
    np.testing.assert_allclose(shown, 255 * expected.reshape(48, 256, 3), atol=1)
