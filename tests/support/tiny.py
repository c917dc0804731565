"""Tiny models that show what can go wrong in a training step, and a way to train them."""

import numpy as np
import tensorflow as tf

from tf_simclr.augment import FIRST_SMALL_VIEW, Augmentation, RandomCrop, RandomFlip
from tf_simclr.keras import keras
from tf_simclr.losses import NTXent
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.simclr import SimCLR

LABELS = np.arange(16) % 3


def tiny_encoder(dtype="float64", synchronized=False):
    """Convolution, batch norm, pooling: what can go wrong across replicas, and no more."""
    return keras.Sequential(
        [
            keras.layers.Conv2D(6, 5, strides=4, use_bias=False, dtype=dtype),
            keras.layers.BatchNormalization(synchronized=synchronized, dtype=dtype),
            keras.layers.ReLU(dtype=dtype),
            keras.layers.GlobalAveragePooling2D(dtype=dtype),
        ]
    )


def augmentation_of(num_views):
    """The augmentation of the tiny models: random, but traced and compiled in a fraction of the whole chain's time."""
    return Augmentation(16, branches=((RandomCrop(), RandomFlip()),) * num_views, seed=1)


def small_views_of(num_views):
    """Small views for the tiny models."""
    chain = (RandomCrop(area=(0.1, 0.5)), RandomFlip())
    return Augmentation(8, branches=(chain,) * num_views, seed=1, first_view=FIRST_SMALL_VIEW)


def tiny_model(
    optimizer, *, synchronized=False, jit_compile=False, dtype="float64", classifier=True, num_views=2, **arguments
):
    keras.utils.set_random_seed(3)
    model = SimCLR(
        tiny_encoder(dtype, synchronized),
        ProjectionHead(2, 5, synchronized=synchronized, dtype=dtype),
        image_size=16,
        temperature=0.3,
        objective_weight=2.0,
        augmentation=augmentation_of(num_views),
        online_classifier=keras.layers.Dense(3, kernel_regularizer="l2", dtype=dtype) if classifier else None,
        **arguments,
    )
    model.compile(optimizer=optimizer(), jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)  # or the step is traced twice
    return model


def weights(model):
    """Weights and batch-norm statistics by name, without the metrics that Keras counts among the weights."""
    parts = {"encoder": model.encoder, "head": model.projection_head, "classifier": model.online_classifier}
    return {
        f"{part} {index}": variable.numpy()
        for part, layer in parts.items()
        if layer is not None
        for index, variable in enumerate(layer.variables)
    }


def fit(model, images, labels=LABELS, batch_size=16, epochs=1):
    """Trains on the images in their order; returns the last metrics."""
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)
    history = model.fit(dataset, epochs=epochs, verbose=0).history
    return {name: values[-1] for name, values in history.items()}


def microbatch_model(
    microbatch_size, *, batch_norm=False, jit_compile=False, dtype="float64", num_views=2, loss=None, **arguments
):
    """Convolutions with penalties, a head and an online classifier; the step is the gradient itself."""
    keras.utils.set_random_seed(3)
    norm = keras.layers.BatchNormalization if batch_norm else keras.layers.LayerNormalization
    encoder = keras.Sequential(
        [
            keras.layers.Conv2D(6, 5, strides=4, kernel_regularizer="l2", dtype=dtype),
            norm(dtype=dtype),
            keras.layers.ReLU(dtype=dtype),
            keras.layers.GlobalAveragePooling2D(dtype=dtype),
        ]
    )
    head_dtype = "float32" if dtype == "mixed_bfloat16" else dtype
    model = SimCLR(
        encoder,
        keras.layers.Dense(5, dtype=head_dtype),
        image_size=16,
        loss=loss or NTXent(0.3),
        objective_weight=2.0,
        augmentation=augmentation_of(num_views),
        online_classifier=keras.layers.Dense(3, kernel_regularizer="l2", dtype=head_dtype),
        classifier_layer=0,
        microbatch_size=microbatch_size,
        **arguments,
    )
    model.compile(keras.optimizers.SGD(1.0, jit_compile=False), jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    return model
