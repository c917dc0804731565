"""Time of linear evaluation against scikit-learn, and its peak memory with features that take up gigabytes.

    python benchmarks/linear_evaluation.py time
    python benchmarks/linear_evaluation.py protocols
    python benchmarks/linear_evaluation.py memory --num_examples 10000 50000
    python benchmarks/linear_evaluation.py memory --num_examples 400000 --num_classes 100 --iterations 1

`time` fits the five penalties of `linear`, one after another, to standardised features of made-up clusters, with one
BLAS thread each: scikit-learn's LogisticRegression on StandardScaler's copy, and the package's. The last row has
features that are correlated as pixels are: sums over 1 to F of those of the first row. Time is processor time, which
other programs disturb less than wall time. `at the end` is how many fits went on to the last iteration, and `excess`
how far the objective of the worst one is above that of a fit to a hundredth of the gradient.

`protocols` runs every protocol on 10,000 training and 2,000 test examples of 512 features and 10 classes.

`memory` runs the whole protocol with a single penalty and `--iterations` of L-BFGS, of which the first twelve fill its
memory. It prints what that adds to the peak of the process, and the peak. Each case runs in its own process, for the
peak of a process never falls.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from benchmarks.arguments import at_least_1  # noqa: E402
from tf_simclr.evaluation import (  # noqa: E402
    PROTOCOLS,
    Features,
    Linear,
    regression,  # noqa: E402
)
from tf_simclr.evaluation.regression import Objective, Regression, fit_path  # noqa: E402
from tf_simclr.settings import RunConfig  # noqa: E402

SIZES = ((10_000, 512, 10), (60_000, 256, 10), (20_000, 512, 200))
BLOCK = 10_000
TOLERANCE = regression._GRADIENT_TOLERANCE


def make_clusters(num_examples: int, num_features: int, num_classes: int) -> Features:
    """Overlapping clusters, as non-negative as the features of an encoder."""
    centers = np.random.default_rng(0).standard_normal([num_classes, num_features], np.float32)
    generator = np.random.default_rng(1)
    labels = generator.integers(0, num_classes, num_examples)
    points = np.empty([num_examples, num_features], np.float32)
    for start in range(0, num_examples, BLOCK):
        block = points[start : start + BLOCK]
        generator.standard_normal(dtype=np.float32, out=block)
        block *= 6
        block += centers[labels[start : start + BLOCK]] + 1
        np.maximum(block, 0, out=block)
    return Features(points, labels, num_classes)


def compare(size: tuple[int, int, int], is_correlated: bool = False) -> None:
    """Prints a row for a size: examples, features, classes."""
    train = make_clusters(*size)
    if is_correlated:
        train.representations[:] -= train.representations.mean(axis=0)
        np.cumsum(train.representations, axis=1, out=train.representations)
    grid, limit = Linear.regularization_grid, Linear.max_iterations
    with threadpool_limits(1, user_api="blas"):
        start = time.process_time()
        scaler = StandardScaler()
        standardized = scaler.fit_transform(train.representations)
        classifier = LogisticRegression(max_iter=limit, warm_start=True)
        expected = []
        for regularization_c in grid:
            classifier.set_params(C=regularization_c).fit(standardized, train.labels)
            weights = (classifier.coef_ / scaler.scale_).T
            bias = classifier.intercept_ - scaler.mean_ @ weights
            expected.append(Regression(weights, bias, regularization_c, classifier.n_iter_.max() < limit))
        theirs = time.process_time() - start
        start = time.process_time()
        path = list(fit_path(Objective(train.representations, train.labels, np.arange(size[0]), size[2]), grid, limit))
        ours = time.process_time() - start
    objective = Objective(train.representations, train.labels, np.arange(size[0]), size[2])
    regression._GRADIENT_TOLERANCE = 1e-6
    best = [above(objective, found, 0.0) for found in fit_path(objective, grid, 2000)]
    regression._GRADIENT_TOLERANCE = TOLERANCE
    excess = [max(map(above, [objective] * len(grid), fits, best)) for fits in (expected, path)]
    ends = f"{sum(not found.is_converged for found in expected)} and {sum(not found.is_converged for found in path)}"
    case = f"{size[0]:9} {size[1]:9} {size[2]:8}"
    print(f"{case} {theirs:13.1f} {ours:9.1f} {ends:>11} {excess[0]:13.6f} {excess[1]:9.6f}", flush=True)


def above(objective: Objective, found: Regression, best: float) -> float:
    """How far the objective of a fit is above the best one."""
    weights = found.weights * objective.deviation[:, None]
    bias = found.bias + objective.mean @ found.weights
    return objective(np.vstack([weights, bias]).T.ravel(), found.regularization_c)[0] - best


def run_protocols() -> None:
    """Prints a row for each protocol."""
    made = make_clusters(12_000, 512, 10)
    train, test = made.take(np.arange(10_000)), made.take(np.arange(10_000, 12_000))
    for name, make in PROTOCOLS.items():
        start = time.process_time()
        scores = make(RunConfig())(train, test.representations)
        seconds = time.process_time() - start
        accuracy = np.mean(np.argmax(scores.probabilities, axis=1) == test.labels)
        print(f"{name:12} {seconds:8.1f} s {100 * accuracy:8.1f} %  {scores.chosen}", flush=True)


def run_protocol(size: tuple[int, int, int], iterations: int) -> None:
    """Prints gigabytes of the features, of what judging them adds to the peak, of the peak, and seconds."""
    train = make_clusters(*size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    scores = Linear(regularization_grid=(1e-3,), max_iterations=iterations)(train, train.representations[:10_000])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    accuracy = np.mean(np.argmax(scores.probabilities, axis=1) == train.labels[:10_000])
    print(train.representations.nbytes / 2**30, (peak - before) / 2**20, peak / 2**20, seconds, accuracy)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("time", "protocols", "memory", "memory_case"))
    parser.add_argument("--num_examples", type=at_least_1, nargs="+", default=[50_000])
    parser.add_argument("--num_features", type=at_least_1, default=2048)
    parser.add_argument("--num_classes", type=at_least_1, default=1000)
    parser.add_argument("--iterations", type=at_least_1, default=12)
    options = parser.parse_args()
    if options.what == "memory_case":
        run_protocol((options.num_examples[0], options.num_features, options.num_classes), options.iterations)
    elif options.what == "protocols":
        run_protocols()
    elif options.what == "time":
        print(" examples  features  classes  scikit-learn      ours  at the end  excess, theirs     ours")
        for size in SIZES:
            compare(size)
        compare(SIZES[0], is_correlated=True)
    else:
        print(" examples  features  classes  features GiB  added GiB  peak GiB  seconds")
        for num_examples in options.num_examples:
            command = [sys.executable, __file__, "memory_case", f"--num_examples={num_examples}"]
            command += [f"--{name}={getattr(options, name)}" for name in ("num_features", "num_classes", "iterations")]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            size, added, peak, seconds, _ = map(float, printed.split()[-5:])
            case = f"{num_examples:9} {options.num_features:9} {options.num_classes:8}"
            print(f"{case} {size:13.2f} {added:10.2f} {peak:9.2f} {seconds:8.0f}", flush=True)


if __name__ == "__main__":
    main()
