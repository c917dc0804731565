"""How good the encoder of a run is, against what: the first thing that a report says."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tf_simclr.data.files.names import printable
from tf_simclr.runs.results import LABEL, OWN_ROW, THIS, headline

# What every verdict should be held against, by the key of the encoder in result.json.
_UNTRAINED, _PIXELS = "eval_untrained", "eval_raw_pixels"


class Accuracy(NamedTuple):
    """A top-1 accuracy, or a difference of two, with its 95 % interval; all are shares."""

    name: str
    low: float
    value: float
    high: float


class Verdict(NamedTuple):
    """What an evaluation on labelled images found.

    Attributes:
      accuracy: Of this run by the protocol that the headline takes.
      protocol: The title of that protocol.
      is_frozen: Whether it judges the frozen encoder, rather than a network that was trained on labels.
      num_images: Test images.
      accuracies: By that protocol: this encoder, those beside it, and the networks trained on labels.
      differences: How much better this encoder is than each one beside it.
      protocols: The titles of all protocols that judge frozen encoders.
      rows: An encoder's title and its accuracy, or None, by each of these protocols.
      cautions: Sentences about what the numbers cannot tell.
    """

    accuracy: Accuracy
    protocol: str
    is_frozen: bool
    num_images: int
    accuracies: Sequence[Accuracy]
    differences: Sequence[Accuracy]
    protocols: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Accuracy | None]]]
    cautions: Sequence[str]


def judge(result: Mapping[str, Any]) -> Verdict | None:
    """Reads the verdict from `result.json`; None if it has no accuracies.

    Raises:
      KeyError: If it is of a version that kept other numbers.
    """
    if "eval/num_test_images" not in result:
        return None
    protocols = {name: printable(settings["title"]) for name, settings in result["protocols"].items()}
    own = [name for name, settings in result["protocols"].items() if name == LABEL or OWN_ROW in settings]
    frozen = [name for name in protocols if name not in own and f"{THIS}/{name}_top_1_accuracy" in result]
    encoders = {name: printable(one["title"]) for name, one in result["encoders"].items()}
    main = headline(frozen) if frozen else own[-1]
    accuracies = [_accuracy(result, encoder, main, title) for encoder, title in encoders.items()] if frozen else []
    accuracies += [_accuracy(result, THIS, name, protocols[name]) for name in own]
    rows = [(title, [_accuracy(result, one, name, title) for name in frozen]) for one, title in encoders.items()]
    differences = [_difference(result, one, main, title) for one, title in encoders.items()]
    accuracy = _accuracy(result, THIS, main, protocols[main])
    if accuracy is None:
        raise KeyError(f"{THIS}/{main}_top_1_accuracy")
    return Verdict(
        accuracy,
        protocols[main],
        bool(frozen),
        int(result["eval/num_test_images"]),
        [one for one in accuracies if one is not None],
        [one for one in differences if one is not None],
        [protocols[name] for name in frozen],
        rows if frozen else [],
        list(_cautions(result, main, bool(frozen))),
    )


def accuracies(result: Mapping[str, Any]) -> list[tuple[str, float]]:
    """All accuracies in `result.json` by their keys, for a result that `judge` cannot read."""
    return [
        (printable(key), float(value))
        for key, value in result.items()
        if key.endswith("accuracy") and isinstance(value, (int, float)) and 0 <= value <= 1
    ]


def _accuracy(result: Mapping[str, Any], encoder: str, protocol: str, title: str) -> Accuracy | None:
    return _with_interval(result, f"{encoder}/{protocol}_top_1_accuracy", title)


def _difference(result: Mapping[str, Any], encoder: str, protocol: str, title: str) -> Accuracy | None:
    return _with_interval(result, f"{encoder}/{protocol}_top_1_difference", title)


def _with_interval(result: Mapping[str, Any], key: str, title: str) -> Accuracy | None:
    if key not in result:
        return None
    value = float(result[key])
    return Accuracy(title, float(result.get(f"{key}_low", value)), value, float(result.get(f"{key}_high", value)))


def _cautions(result: Mapping[str, Any], protocol: str, is_frozen: bool) -> Iterator[str]:
    images = int(result["eval/num_test_images"])
    if count := result.get("eval/num_test_images_in_train"):
        yield (
            f"{int(count):,} of the {images:,} test images are, pixel by pixel, among the training images, which "
            "flatters every number; --mode=check names them."
        )
    missing = [text for name, text in ((_UNTRAINED, "the untrained encoder"), (_PIXELS, "raw pixels"))
               if f"{name}/{protocol}_top_1_accuracy" not in result]  # fmt: skip
    if missing and is_frozen:
        yield (
            f"It was not compared with {' or '.join(missing)}, so this does not say what the training has brought: "
            "evaluate with --mode=eval --set=eval.baselines=true."
        )
    if result["protocols"].get(protocol, {}).get("chosen", {}).get("converged") is False:
        yield "The linear classifier had not converged when its fit was stopped; a longer fit may change its accuracy."
    yield "The intervals are over the test images (95 %); another seed of training may differ by more."
