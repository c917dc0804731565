"""The vision transformer against NumPy: positions, attention, a block, the whole."""

import numpy as np
import pytest
import tensorflow as tf
from replicas import mirrored
from scipy.special import erf, softmax

from tf_simclr import builders, gradient_cache
from tf_simclr.activation_memory import bytes_per_view
from tf_simclr.augment import Augmentation, RandomCrop, RandomFlip
from tf_simclr.keras import keras
from tf_simclr.models.simclr import SimCLR
from tf_simclr.models.vit import GridPositions, SelfAttention, vit
from tf_simclr.settings import RunConfig, override


def randomize(layer, seed=0):
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))


def attention(tokens, weights, heads):
    """One image at a time, one head at a time."""
    kernel, bias, out_kernel, out_bias = weights
    width = tokens.shape[-1]
    outputs = []
    for image in tokens:
        queries, keys, values = np.split(image @ kernel + bias, 3, axis=-1)
        mixed = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            logits = queries[:, part] @ keys[:, part].T / np.sqrt(width // heads)
            mixed.append(softmax(logits, axis=-1) @ values[:, part])
        outputs.append(np.concatenate(mixed, axis=-1) @ out_kernel + out_bias)
    return np.stack(outputs)


def layer_norm(x, scale, offset):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + offset


def positions(rows, columns, width):
    """By its definition, one number at a time."""
    found = np.zeros([rows, columns, width])
    quarter = width // 4
    for y in range(rows):
        for x in range(columns):
            for i in range(quarter):
                frequency = 10_000 ** (-i / quarter)
                found[y, x, i], found[y, x, quarter + i] = np.sin(y * frequency), np.cos(y * frequency)
                found[y, x, 2 * quarter + i] = np.sin(x * frequency)
                found[y, x, 3 * quarter + i] = np.cos(x * frequency)
    return found


def test_positions_are_sines_and_cosines_of_row_and_column():
    found = GridPositions()(tf.ones([2, 3, 5, 8]))
    np.testing.assert_allclose(found, np.tile(1 + positions(3, 5, 8), [2, 1, 1, 1]), atol=1e-5)


def test_attention_is_that_of_the_paper():
    layer = SelfAttention(3)
    tokens = np.random.default_rng(1).normal(size=[2, 5, 12]).astype(np.float32)
    layer(tokens)
    randomize(layer)
    expected = attention(tokens, [weight.numpy() for weight in layer.weights], heads=3)
    np.testing.assert_allclose(layer(tokens), expected, rtol=1e-4, atol=1e-4)
    assert SelfAttention.from_config(layer.get_config()).num_heads == 3


def test_the_network_of_one_block_is_that_of_the_paper():
    encoder = vit(4, width=8, depth=1, num_heads=2, image_size=12)
    randomize(encoder)
    images = np.random.default_rng(2).uniform(size=[2, 12, 12, 3]).astype(np.float32)
    kernel, bias, *rest = [weight.numpy() for weight in encoder.weights]
    patches = images.reshape(2, 3, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 3, 3, 48)
    tokens = (patches @ kernel.reshape(48, 8) + bias + positions(3, 3, 8)).reshape(2, 9, 8)
    scale, offset, *rest = rest
    tokens = tokens + attention(layer_norm(tokens, scale, offset), rest[:4], heads=2)
    scale, offset, up, up_bias, down, down_bias, *rest = rest[4:]
    hidden = layer_norm(tokens, scale, offset) @ up + up_bias
    hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
    tokens = layer_norm(tokens + hidden @ down + down_bias, *rest)
    np.testing.assert_allclose(encoder(images), tokens.mean(axis=1), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("size", "patch_size"), [(8, 1), (16, 2), (32, 4), (64, 8), (96, 8), (128, 16), (224, 16), (512, 16)]
)
def test_patches_follow_from_the_image_size(size, patch_size, monkeypatch):
    monkeypatch.setattr("tf_simclr.builders.encoder.vit", lambda patch_size, width, **settings: (patch_size, width))
    for name, width in (("vit_tiny", 192), ("vit_small", 384)):
        config = override(RunConfig(), {"model.encoder": name, "data.image_size": size})
        assert builders.build_encoder(config) == (patch_size, width)


def test_it_has_the_parameters_of_the_paper_takes_views_of_any_size_and_draws_nothing():
    # 5.7 million with a classifier of 1,000 classes, a class token and learnt positions.
    config = {"model.encoder": "vit_tiny", "data.image_size": 64, "augmentation.view_size": 32,
              "train.precision": "mixed_bfloat16"}  # fmt: skip
    encoder = builders.build_encoder(override(RunConfig(), config), l2=0.5)
    assert encoder.count_params() == (3 * 64 + 1) * 192 + 12 * (12 * 192**2 + 13 * 192) + 2 * 192
    assert encoder(np.zeros([1, 32, 32, 3])).shape == encoder(np.zeros([1, 64, 64, 3])).shape == [1, 192]
    assert encoder.output.dtype == tf.float32
    assert {layer.compute_dtype for layer in encoder.layers[1:-1]} == {"bfloat16"}
    gradient_cache.check_layers([encoder], num_replicas=1)
    # Attention counts, whose size is that of no layer's output: 3 heads for each of the 12 blocks, of 64 or 16 tokens.
    large, small = (bytes_per_view(encoder, size) for size in (64, 32))
    assert large - 4 * small > 12 * 3 * (64**2 - 4 * 16**2) * 2
    norms = [layer for layer in encoder.submodules if isinstance(layer, keras.layers.LayerNormalization)]
    spared = {id(weight) for norm in norms for weight in norm.weights}
    expected = sum(0.25 * np.sum(weight.numpy() ** 2) for weight in encoder.weights if id(weight) not in spared)
    assert len(norms) == 25
    np.testing.assert_allclose(sum(encoder.losses), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.image_size": 100}, "patches of 8 px: use --image_size=96. Received: image_size 100"),
        (
            {"data.image_size": 32, "augmentation.view_size": 18},
            "patches of 4 px: use --set=augmentation.view_size=16. Received: view_size 18",
        ),
    ],
)
def test_sizes_that_are_no_multiple_of_the_patches_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        builders.build_encoder(override(RunConfig(), {"model.encoder": "vit_tiny"} | changes))
    with pytest.raises(ValueError, match="width must be a multiple of 4 and of num_heads, 3. Received: 20"):
        vit(4, width=20)
    with pytest.raises(ValueError, match="image_size must be a multiple of patch_size, 4. Received: 30"):
        vit(4, image_size=30)


CHAIN = (RandomCrop(area=(0.8, 1.0)), RandomFlip())


def make_simclr(optimizer, jit_compile=False, **settings):
    keras.utils.set_random_seed(3)
    encoder = vit(4, width=16, depth=1, num_heads=2, image_size=16)
    augmentation = Augmentation(16, branches=(CHAIN, CHAIN), seed=1)
    head = keras.layers.Dense(8)
    model = SimCLR(encoder, head, image_size=16, temperature=0.2, augmentation=augmentation, **settings)
    model.compile(optimizer, jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("way", ["XLA", "micro-batches", "replicas"])
def test_the_step_is_the_same_in_every_way(way, photos):
    def step(num_replicas=1, **settings):
        with mirrored(num_replicas).scope():
            model = make_simclr(keras.optimizers.SGD(1.0, jit_compile=False), **settings)
        model.fit(tf.data.Dataset.from_tensor_slices(photos).batch(16), verbose=0)
        return model.encoder.get_weights()

    others = {
        "micro-batches": lambda: step(microbatch_size=3),
        "XLA": lambda: step(jit_compile=True),
        "replicas": lambda: step(2),
    }
    start = make_simclr("sgd").encoder.get_weights()
    for before, expected, found in zip(start, step(), others[way](), strict=True):
        scale = np.linalg.norm(expected - before)
        assert np.linalg.norm(found - expected) <= 1e-3 * scale + 1e-6


def test_it_learns_to_find_the_other_view(photos):
    model = make_simclr(keras.optimizers.Adam(5e-3, jit_compile=False))
    history = model.fit(photos, batch_size=16, epochs=120, verbose=0).history["contrastive_top_1_accuracy"]
    assert history[0] < 0.4 and np.mean(history[-10:]) > 0.7
