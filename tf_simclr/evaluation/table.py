"""The result of an evaluation as text for the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tf_simclr.data.files.names import printable
from tf_simclr.evaluation.transfer import table as transfer
from tf_simclr.runs.results import LABEL, OWN_ROW, SHORT_TITLES, headline, worth_of_labels

_NAME_WIDTH, _COLUMN_WIDTH = 36, 22
# Behind two blanks, and before one.
_TITLE_WIDTH = _NAME_WIDTH - 3


def describe(result: Mapping[str, Any]) -> str:
    """Formats the result as tables, or as one line if it has no accuracies."""
    parts = [_describe_labels(result)]
    if "transfer" in result:
        parts.append(transfer.describe(result["transfer"]))
    return "\n\n".join(parts)


def _describe_labels(result: Mapping[str, Any]) -> str:
    """What the run's own labels say."""
    if "eval/num_test_images" not in result:
        return "No accuracies: the images have no labels."
    return "\n".join(
        [
            *_accuracies(result),
            *_differences(result),
            *_confusions(result),
            *_leaks(result),
            "In brackets: 95 % intervals over the test images; another seed of training may differ by more.",
            *_label_efficiency(result.get("label_efficiency", [])),
        ]
    )


def _accuracies(result: Mapping[str, Any]) -> Iterator[str]:
    """A row for each encoder, this one last, with a column for each protocol; then the trained classifier."""
    own = {name for name, settings in result["protocols"].items() if name == LABEL or OWN_ROW in settings}
    protocols = {name: settings["title"] for name, settings in result["protocols"].items() if name not in own}
    encoders = [(name, encoder["title"]) for name, encoder in reversed(result["encoders"].items())]
    title = f"top-1 accuracy on {result['eval/num_test_images']:,} test images"
    if encoders:
        yield _row(title, protocols.values())
    for name, encoder in encoders:
        yield _row(f"  {_shown(encoder)}", (_accuracy(result, f"{name}/{one}") for one in protocols))
    if own and not encoders:
        yield title
    for name in filter(own.__contains__, result["protocols"]):
        yield _row(f"  {result['protocols'][name]['title']}", [_accuracy(result, f"eval/{name}")])


def _differences(result: Mapping[str, Any]) -> Iterator[str]:
    """A sentence about every encoder beside this one, by the `headline` of the protocols that have judged both."""
    for name, encoder in result["encoders"].items():
        judged = [one for one in result["protocols"] if f"{name}/{one}_top_1_difference" in result]
        if not judged:
            continue
        protocol = headline(judged)
        low, value, high = (100 * result[f"{name}/{protocol}_top_1_difference{end}"] for end in ("_low", "", "_high"))
        verdict = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
        yield (
            f"This encoder is {verdict} {_shown(encoder['title'])}: {value:+.1f} points [{low:+.1f}, {high:+.1f}], "
            f"{result['protocols'][protocol]['title']}"
        )


def _confusions(result: Mapping[str, Any]) -> Iterator[str]:
    """A sentence about the most frequent mistakes."""
    found = result["confusions"]
    if found and found["most_frequent"]:
        mistakes = ", ".join(
            f"{printable(one['label'])} for {printable(one['predicted'])} ({one['count']:,})"
            for one in found["most_frequent"]
        )
        yield f"Most often mistaken, {result['protocols'][found['protocol']]['title']}: {mistakes}"


def _leaks(result: Mapping[str, Any]) -> Iterator[str]:
    """A sentence about test images that are training images, too."""
    if count := result.get("eval/num_test_images_in_train"):
        yield (
            f"Caution: {count:,} of the {result['eval/num_test_images']:,} test images are, pixel by pixel, among the "
            "training images, which flatters every number; --mode=check names them"
        )


def _label_efficiency(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A row for each share of the labels with a column for each series, and what a label is worth."""
    if not rows:
        return
    titles = {row["series"]: SHORT_TITLES[row["series"]] for row in rows}
    yield _row("mean accuracy [worst, best draw]", titles.values())
    for fraction in dict.fromkeys(row["fraction"] for row in rows):
        found = {row["series"]: row for row in rows if row["fraction"] == fraction}
        name = f"  {fraction:.0%}, {next(iter(found.values()))['labels']:,} labels"
        yield _row(name, (_interval(found[one]["low"], found[one]["mean"], found[one]["high"]) for one in titles))
    yield worth_of_labels(rows)


def _accuracy(result: Mapping[str, Any], place: str) -> str:
    return _interval(*(result[f"{place}_top_1_accuracy{end}"] for end in ("_low", "", "_high")))


def _interval(low: float, value: float, high: float) -> str:
    return f"{100 * value:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


def _shown(title: str) -> str:
    """A title without line breaks and the like, shortened from the left: the end of a path says most."""
    shown = printable(title)
    return shown if len(shown) <= _TITLE_WIDTH else f"...{shown[3 - _TITLE_WIDTH :]}"


def _row(name: str, cells: Iterable[str]) -> str:
    return f"{name:{_NAME_WIDTH}}" + "".join(f"{cell:>{_COLUMN_WIDTH}}" for cell in cells)
