"""Slow NumPy transcriptions of the papers, which the tests compare the package with."""

import numpy as np


def compared(views, *, normalize=True, num_large=None, labels=None, memory=None):
    """For every anchor of views [V, N, D]: its products with all candidates, by name, and the names of its positives.

    Only the first `num_large` views are candidates. Images of one label are positives, unless it is -1. Rows of the
    memory [M, D] are negatives.
    """
    num_views, num_images, _ = views.shape
    z = {(v, k): np.asarray(views[v, k], np.float64) for v in range(num_views) for k in range(num_images)}
    z |= {("memory", k): np.asarray(row, np.float64) for k, row in enumerate([] if memory is None else memory)}
    if normalize:
        z = {row: vector / np.sqrt(vector @ vector) for row, vector in z.items()}
    candidates = [row for row in z if row[0] == "memory" or row[0] < (num_large or num_views)]
    for i in [row for row in z if row[0] != "memory"]:
        products = {j: z[i] @ z[j] for j in candidates if j != i}
        others = [j for j in products if j[0] != "memory"]
        known = labels is not None and labels[i[1]] != -1
        yield products, [j for j in others if j[1] == i[1] or (known and labels[j[1]] == labels[i[1]])]


def contrast(views, temperature, *, exclude_positives=False, sigma=None, **which):
    """Algorithm 1 of the SimCLR paper as loops, for views [V, N, D]: the loss, the accuracy and the entropy.

    The loss of an anchor is the mean over its positives, by default the other views of its image. With
    `exclude_positives`, the denominator leaves these out. With `sigma`, positives have the weights of DCLW.
    """
    losses, hits, entropies = [], [], []
    anchors = list(compared(views, **which))
    weights = [[1.0] * len(positives) for _, positives in anchors]
    if sigma is not None:
        close = [[np.exp(products[j] / sigma) for j in positives] for products, positives in anchors]
        mean = np.mean([np.mean(values) for values in close])
        weights = [[2 - value / mean for value in values] for values in close]
    for (products, positives), of_positives in zip(anchors, weights, strict=True):
        similarity = {j: product / temperature for j, product in products.items()}
        others = [j for j in similarity if not (exclude_positives and j in positives)]
        denominator = sum(np.exp(similarity[j]) for j in others)
        attraction = sum(weight * similarity[j] for weight, j in zip(of_positives, positives, strict=True))
        losses.append(np.log(denominator) - attraction / len(positives))
        hits.append(max(similarity, key=similarity.get) in positives)
        shares = [np.exp(similarity[j]) / denominator for j in others]
        entropies.append(-sum(share * np.log(share) for share in shares))
    return np.mean(losses), np.mean(hits), np.mean(entropies)


def logistic(views, temperature, *, semi_hard=False, **which):
    """NT-Logistic of table 2 as loops, for views [V, N, D]: the loss and the accuracy."""
    losses, hits = [], []
    for products, positives in compared(views, **which):
        negatives = [product for j, product in products.items() if j not in positives]
        terms = []
        for j in positives:
            chosen = negatives
            if semi_hard:
                chosen = sorted(product for product in negatives if product < products[j])[-1:]
            repulsion = [np.log(1 + np.exp(product / temperature)) for product in chosen]
            terms.append(np.log(1 + np.exp(-products[j] / temperature)) + sum(repulsion) / max(len(repulsion), 1))
        losses.append(np.mean(terms))
        hits.append(max(products, key=products.get) in positives)
    return np.mean(losses), np.mean(hits)


def triplet(views, margin, *, semi_hard=False, **which):
    """The margin triplet loss of table 2 as loops, for views [V, N, D]: the loss and the accuracy."""
    losses, hits = [], []
    for products, positives in compared(views, **which):
        negatives = [product for j, product in products.items() if j not in positives]
        terms = []
        for j in positives:
            chosen = negatives
            if semi_hard:
                inside = [product for product in negatives if products[j] - margin < product < products[j]]
                chosen = sorted(inside)[-1:]
            excess = [max(product - products[j] + margin, 0) for product in chosen]
            terms.append(sum(excess) / max(len(excess), 1))
        losses.append(np.mean(terms))
        hits.append(max(products, key=products.get) in positives)
    return np.mean(losses), np.mean(hits)


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


def orthogonalized(matrix):
    """Muon's polynomial, five times, of the singular values of a matrix over their norm; the directions stay."""
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    values = values / (np.sqrt(np.sum(values**2)) + 1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (u * values) @ v


def muon_step(w, g, v, *, learning_rate, momentum, weight_decay):
    """One step of Muon for a kernel of any rank, as a matrix of inputs by outputs; returns the new w and v."""
    v = momentum * v + g
    matrix = (g + momentum * v).reshape(-1, g.shape[-1])
    step = 0.2 * np.sqrt(max(matrix.shape)) * orthogonalized(matrix).reshape(g.shape)
    return w - learning_rate * (step + weight_decay * w), v


def adam_step(w, g, mean, square, *, step, learning_rate, weight_decay):
    """The step-th step of AdamW, counted from 1, by its paper; returns the new w, mean and square."""
    mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
    corrected = mean / (1 - 0.9**step), square / (1 - 0.999**step)
    return w - learning_rate * (corrected[0] / (np.sqrt(corrected[1]) + 1e-7) + weight_decay * w), mean, square
