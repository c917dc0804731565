"""Slow NumPy transcriptions of the papers, which the tests compare the package with."""

import numpy as np


def contrast(views, temperature, *, normalize=True, exclude_positives=False, num_large=None):
    """Algorithm 1 of the SimCLR paper as loops, for views [V, N, D]: the loss, the accuracy and the entropy.

    With V > 2, the loss of an anchor is the mean over the other views of its image. With `exclude_positives`, the
    denominator leaves these out. With `num_large`, only so many views are candidates: the others look for them.
    """
    num_views, num_images, _ = views.shape
    z = {(v, k): np.asarray(views[v, k], np.float64) for v in range(num_views) for k in range(num_images)}
    if normalize:
        z = {row: vector / np.sqrt(vector @ vector) for row, vector in z.items()}
    losses, hits, entropies = [], [], []
    for i in z:
        similarity = {j: z[i] @ z[j] / temperature for j in z if j != i and j[0] < (num_large or num_views)}
        positives = [j for j in similarity if j[1] == i[1]]
        others = [j for j in similarity if not (exclude_positives and j in positives)]
        denominator = sum(np.exp(similarity[j]) for j in others)
        pair_losses = [-np.log(np.exp(similarity[j]) / denominator) for j in positives]
        losses.append(sum(pair_losses) / len(positives))
        hits.append(max(similarity, key=similarity.get) in positives)
        shares = [np.exp(similarity[j]) / denominator for j in others]
        entropies.append(-sum(share * np.log(share) for share in shares))
    return np.mean(losses), np.mean(hits), np.mean(entropies)


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
