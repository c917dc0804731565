"""The result of an evaluation as text for the terminal."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# The classifier that was trained with the encoder, in a row of its own.
LABEL = "label"

_NAME_WIDTH, _COLUMN_WIDTH = 36, 22
# Behind two blanks, and before one.
_TITLE_WIDTH = _NAME_WIDTH - 3


def describe(result: Mapping[str, Any]) -> str:
    """Formats the result as tables, or as one line if it has no accuracies."""
    if "eval/num_test_images" not in result:
        return "No accuracies: the images have no labels."
    return "\n".join(
        [
            *_accuracies(result),
            *_differences(result),
            "In brackets: 95 % intervals over the test images; another seed of training may differ by more.",
        ]
    )


def _accuracies(result: Mapping[str, Any]) -> Iterator[str]:
    """A row for each encoder, this one last, with a column for each protocol; then the trained classifier."""
    protocols = {name: settings["title"] for name, settings in result["protocols"].items() if name != LABEL}
    encoders = [(name, encoder["title"]) for name, encoder in reversed(result["encoders"].items())]
    title = f"top-1 accuracy on {result['eval/num_test_images']:,} test images"
    if encoders:
        yield _row(title, protocols.values())
    for name, encoder in encoders:
        yield _row(f"  {_shown(encoder)}", (_accuracy(result, f"{name}/{one}") for one in protocols))
    if LABEL in result["protocols"]:
        if not encoders:
            yield title
        yield _row(f"  {result['protocols'][LABEL]['title']}", [_accuracy(result, f"eval/{LABEL}")])


def _differences(result: Mapping[str, Any]) -> Iterator[str]:
    """A sentence about every encoder beside this one, by the last protocol that has judged both."""
    for name, encoder in result["encoders"].items():
        judged = [one for one in result["protocols"] if f"{name}/{one}_top_1_difference" in result]
        if not judged:
            continue
        low, value, high = (100 * result[f"{name}/{judged[-1]}_top_1_difference{end}"] for end in ("_low", "", "_high"))
        verdict = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
        yield (
            f"This encoder is {verdict} {_shown(encoder['title'])}: {value:+.1f} points [{low:+.1f}, {high:+.1f}], "
            f"{result['protocols'][judged[-1]]['title']}"
        )


def _accuracy(result: Mapping[str, Any], place: str) -> str:
    low, value, high = (100 * result[f"{place}_top_1_accuracy{end}"] for end in ("_low", "", "_high"))
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def _shown(title: str) -> str:
    """A title without line breaks and the like, shortened from the left: the end of a path says most."""
    printable = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in title)
    return printable if len(printable) <= _TITLE_WIDTH else f"...{printable[3 - _TITLE_WIDTH :]}"


def _row(name: str, cells: Iterable[str]) -> str:
    return f"{name:{_NAME_WIDTH}}" + "".join(f"{cell:>{_COLUMN_WIDTH}}" for cell in cells)
