"""The projection head in NumPy."""

import numpy as np


def transcribed(weights, h, is_training):
    """The equations of docs/method.md in NumPy: [h, u_1, ..., z] from (W, scale, offset, mean, variance) by layer."""
    outputs = [h]
    for number, (kernel, scale, offset, mean, variance) in enumerate(weights, 1):
        product = outputs[-1] @ kernel
        if is_training:
            mean, variance = product.mean(axis=0), product.var(axis=0)
        product = (product - mean) / np.sqrt(variance + 1e-5) * scale + offset
        outputs.append(np.maximum(product, 0) if number < len(weights) else product)
    return outputs


def draw_weights(head, rng):
    """Draws all weights of a head, and returns them layer by layer."""
    drawn = []
    for dense, norm in head._layers_in_order:
        for weight in (*dense.weights, *norm.weights):
            weight.assign(
                rng.uniform(0.5, 1.5, weight.shape) if "variance" in weight.name else rng.normal(size=weight.shape)
            )
        offset = norm.beta.numpy() if norm.center else 0.0
        drawn.append(
            [dense.kernel.numpy(), norm.gamma.numpy(), offset, norm.moving_mean.numpy(), norm.moving_variance.numpy()]
        )
    return drawn
