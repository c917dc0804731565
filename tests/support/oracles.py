"""Slow NumPy transcriptions of the papers, which the tests hold the package against."""

import numpy as np


def nt_xent_loss(view_a, view_b, temperature, normalize=True):
    """Algorithm 1 of the SimCLR paper, as its three loops."""
    num_pairs = len(view_a)
    z = np.empty([2 * num_pairs, view_a.shape[1]], np.float64)
    for k in range(num_pairs):
        z[2 * k], z[2 * k + 1] = view_a[k], view_b[k]
    similarity = np.empty([2 * num_pairs, 2 * num_pairs])
    for i in range(2 * num_pairs):
        for j in range(2 * num_pairs):
            similarity[i, j] = z[i] @ z[j]
            if normalize:
                similarity[i, j] /= np.linalg.norm(z[i]) * np.linalg.norm(z[j])

    def pair_loss(i, j):
        denominator = sum(np.exp(similarity[i, k] / temperature) for k in range(2 * num_pairs) if k != i)
        return -np.log(np.exp(similarity[i, j] / temperature) / denominator)

    total = sum(pair_loss(2 * k, 2 * k + 1) + pair_loss(2 * k + 1, 2 * k) for k in range(num_pairs))
    return total / (2 * num_pairs)


def lars_step(w, g, v, *, learning_rate, momentum, weight_decay, trust_coefficient, adapt):
    """One step of LARS with the learning rate folded into the velocity; returns the new w and v."""
    trust = 1.0
    if adapt:
        g = g + weight_decay * w
        w_norm, g_norm = np.sqrt(np.sum(w**2)), np.sqrt(np.sum(g**2))
        if w_norm > 0 and g_norm > 0:
            trust = trust_coefficient * w_norm / g_norm
    v = momentum * v + learning_rate * trust * g
    return w - v, v
