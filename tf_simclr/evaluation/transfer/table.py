"""The result of the transfer suite as text for the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

_NAME_WIDTH, _NUMBER_WIDTH, _METRIC_WIDTH, _PAPER_WIDTH = 16, 22, 16, 16


def describe(transfer: Mapping[str, Any]) -> str:
    """Formats the entry `transfer` of a result: a row for each data set, then what is missing."""
    return "\n".join([*_rows(transfer), *_differences(transfer), *_missing(transfer)])


def _rows(transfer: Mapping[str, Any]) -> Iterator[str]:
    yield f"transfer of {transfer['encoder']}, {transfer['protocol']}; beside it, the paper's ResNet-50 from ImageNet"
    if transfer["sets"]:
        yield _row("", "", "metric", "SimCLR", "supervised")
    for found in transfer["sets"].values():
        low, value, high = (100 * found[f"{found['metric']}{end}"] for end in ("_low", "", "_high"))
        paper = (f"{found['paper'][name]:.1f}%" for name in ("simclr", "supervised"))
        yield _row(f"  {found['title']}", f"{value:.1f}% [{low:.1f}, {high:.1f}]", found["metric_title"], *paper)


def _row(name: str, number: str, metric: str, simclr: str, supervised: str) -> str:
    paper = f"{simclr:>{_PAPER_WIDTH}}{supervised:>{_PAPER_WIDTH}}"
    return f"{name:{_NAME_WIDTH}}{number:>{_NUMBER_WIDTH}}{metric:>{_METRIC_WIDTH}}{paper}"


def _differences(transfer: Mapping[str, Any]) -> Iterator[str]:
    """The data sets that are smaller or larger than those of the protocol, which no number of the paper is for."""
    for found in transfer["sets"].values():
        sizes = found["protocol_sizes"]
        ours = [found[f"num_{name}"] for name in ("classes", "train_images", "test_images")]
        if ours != [sizes[name] for name in ("classes", "train", "test")]:
            here, there = (
                "{:,} classes, {:,} training and {:,} test images".format(*n) for n in (ours, sizes.values())
            )
            yield f"{found['title']} is not what the paper's numbers are for: {here} instead of {there}"


def _missing(transfer: Mapping[str, Any]) -> Iterator[str]:
    if transfer["missing"]:
        yield f"Missing in {transfer['data_dir']}; an evaluation downloads nothing:"
    for name, advice in transfer["missing"].items():
        yield f"  {name}: {advice}"
