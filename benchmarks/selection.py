"""Whether images chosen by `select` teach more than random ones, and how precise `dedupe` and `suspects` are.

    python run.py --mode=embed --model_dir=RUN --data_dir=flowers --output_dir=embeddings
    python benchmarks/selection.py embeddings --seeds=5
    python benchmarks/selection.py embeddings --model=RUN        # with known copies, embedded by the same run

select: a tenth of the images is held out. From the others, 1 % are chosen by each method and at random, and a
logistic regression on their embeddings is tested on the held-out tenth. Five seeds draw the held-out images, the random
images and the clusters.

suspects: the labels of 5 % of the images are replaced by another class. Precision is the share of replaced labels
among the suspects; it counts labels that were wrong before as mistakes. Recall is the share of replaced labels found.

dedupe: 300 images get three copies each (JPEG of quality 50, half the size, 3 % cut off at each side), made and
embedded here. A pair is right if it is of two copies of one image; images that were duplicates before count as
mistakes. Recall is the share of the pairs of an image and its copy.
"""

import argparse
import io
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.arguments import at_least_1  # noqa: E402
from tf_simclr.embeddings import duplicates, neighbors, oddities, selection  # noqa: E402
from tf_simclr.embeddings.folder import Embeddings  # noqa: E402

HELD_OUT = 0.1
FLIPPED = 0.05
ORIGINALS = 300


def accuracy(vectors: np.ndarray, labels: np.ndarray, chosen: np.ndarray, test: np.ndarray) -> float:
    """Of a linear classifier that learns from the chosen images."""
    if len(set(labels[chosen])) < 2:
        return float(np.mean(labels[test] == labels[chosen[0]]))
    classifier = LogisticRegression(C=10.0, max_iter=500).fit(vectors[chosen], labels[chosen])
    return float(classifier.score(vectors[test], labels[test]))


def measure_selection(vectors: np.ndarray, labels: np.ndarray, share: float, seeds: int) -> Iterator[str]:
    results: dict[str, list[float]] = {}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(vectors))
        test, pool = np.split(order, [round(HELD_OUT * len(order))])
        count = round(share * len(pool))
        choices = {
            "random": np.arange(count),
            "typical": selection.typical(vectors[pool], count, seed),
            "spread": selection.spread(vectors[pool], count),
        }
        for name, chosen in choices.items():
            results.setdefault(name, []).append(accuracy(vectors, labels, pool[chosen], test))
    random = np.array(results["random"])
    for name, found in results.items():
        gains = 100 * (np.array(found) - random)
        yield (
            f"select {name:8} {share:4.0%} ({count} labels): {np.mean(found):.3f} +- {np.std(found, ddof=1):.3f}; "
            f"against random {gains.mean():+.1f} points ({', '.join(f'{gain:+.1f}' for gain in gains)})"
        )


def measure_suspects(vectors: np.ndarray, labels: np.ndarray, seeds: int) -> Iterator[str]:
    names = np.unique(labels)
    tops, wholes = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        flipped = rng.permutation(len(labels))[: round(FLIPPED * len(labels))]
        noisy = labels.copy()
        for row in flipped:
            noisy[row] = rng.choice(names[names != labels[row]])
        rows = oddities.suspects(vectors, noisy).rows
        for found, kept in ((wholes, rows), (tops, rows[: len(flipped)])):
            right = np.isin(kept, flipped).sum()
            found.append((len(kept), right / len(kept), right / len(flipped)))
    for title, found in (("all", wholes), ("as many as flipped", tops)):
        count, precision, recall = np.mean(found, axis=0)
        yield f"suspects, {title}: {count:.0f}, precision {precision:.3f} (chance {FLIPPED:.2f}), recall {recall:.3f}"


def copies(path: str) -> dict[str, bytes]:
    """Files of copies by the change."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    dx, dy = max(1, round(0.03 * width)), max(1, round(0.03 * height))
    changed = {
        "jpeg50": (image, 50),
        "half": (image.resize((width // 2, height // 2), Image.Resampling.BICUBIC), 95),
        "crop3": (image.crop((dx, dy, width - dx, height - dy)), 95),
    }
    made = {}
    for name, (one, quality) in changed.items():
        content = io.BytesIO()
        one.save(content, "JPEG", quality=quality)
        made[name] = content.getvalue()
    return made


def embed_copies(
    archive: Embeddings, model: str, rows: np.ndarray, folder: pathlib.Path
) -> tuple[np.ndarray, list[str]]:
    """The vectors of the copies, [3 * len(rows), F], and the change of each."""
    import tensorflow as tf

    from tf_simclr.evaluation import embed
    from tf_simclr.settings import RunConfig, override

    for row in rows:
        for name, content in copies(archive.path(int(row))).items():
            (folder / f"{row:08}_{name}.jpg").write_bytes(content)
    settings = {
        "mode": "embed", "data.dataset": "folder", "data.data_dir": str(folder), "embed.encoder": model,
        "embed.output_dir": str(folder / "out"), "data.image_size": archive.about["model"]["image_size"],
    }  # fmt: skip
    embed.embed(override(RunConfig(), settings), tf.distribute.get_strategy())
    made = Embeddings(folder / "out")
    return made.vectors(), [pathlib.Path(made.path(row)).stem for row in range(len(made))]


def measure_duplicates(archive: Embeddings, vectors: np.ndarray, model: str) -> Iterator[str]:
    rows = np.sort(np.random.default_rng(0).permutation(len(vectors))[:ORIGINALS])
    with tempfile.TemporaryDirectory() as folder:
        copied, names = embed_copies(archive, model, rows, pathlib.Path(folder))
    whole = np.concatenate([vectors, copied])
    origin = np.concatenate([np.arange(len(vectors)), [int(name.partition("_")[0]) for name in names]])
    changes = np.array([name.partition("_")[2] for name in names])
    for threshold in (0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999):
        pairs, alike = neighbors.pairs(whole, threshold)
        is_right = origin[pairs[:, 0]] == origin[pairs[:, 1]]
        found = {tuple(pair) for pair in pairs.tolist()}
        recalls = [
            np.mean([(int(origin[row]), int(row)) in found for row in len(vectors) + np.flatnonzero(changes == change)])
            for change in np.unique(changes)
        ]
        groups = duplicates.group(pairs, alike, lambda row: -row)
        right = sum(origin[one.keep] == origin[other] for one in groups for other in one.others)
        total = sum(len(one.others) for one in groups)
        by_change = zip(np.unique(changes), recalls, strict=True)
        shown = ", ".join(f"{change} {recall:.2f}" for change, recall in by_change)
        precision = is_right.mean() if len(pairs) else 1
        yield (
            f"dedupe {threshold}: {len(pairs)} pairs, precision {precision:.3f}, recall {shown}"
            f"; in groups precision {right / max(1, total):.3f}, recall {right / (3 * ORIGINALS):.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="embeddings of labelled images")
    parser.add_argument("--model", help="the run that has made them, for the copies")
    parser.add_argument("--seeds", type=at_least_1, default=5)
    parser.add_argument("--share", type=float, default=0.01, help="of the images to label")
    parser.add_argument("--limit", type=at_least_1, help="takes a random part of the images")
    options = parser.parse_args()
    archive = Embeddings(options.folder)
    vectors, labels = archive.vectors(), archive.labels().astype(str)
    print(f"{len(vectors):,} images of {len(set(labels))} classes, {vectors.shape[1]} features", flush=True)
    if options.model:
        for line in measure_duplicates(archive, vectors, options.model):
            print(line, flush=True)
        return
    if options.limit:
        part = np.random.default_rng(0).permutation(len(vectors))[: options.limit]
        vectors, labels = vectors[part], labels[part]
    for line in measure_suspects(vectors, labels, options.seeds):
        print(line, flush=True)
    for line in measure_selection(vectors, labels, options.share, options.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
