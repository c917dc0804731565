"""Findings about images that occur more than once."""

import collections
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_simclr.check.findings import Finding
from tf_simclr.check.images import PARTS
from tf_simclr.check.sheet import write_groups
from tf_simclr.data.quality import classes
from tf_simclr.data.quality.duplicates import MAX_COPIES
from tf_simclr.data.quality.survey import Survey, find_duplicates, look_again

_MAX_NEAR_SHARE = 0.01
_SHOWN_GROUPS, _SHOWN_IMAGES = 24, 3
_SHOWN_SIZE_PX = 160

Groups = Sequence[np.ndarray]


def examine(surveys: Mapping[str, Survey], sheet: pathlib.Path) -> Iterator[Finding]:
    """All findings about copies, exact and near.

    Args:
      surveys: By part of the run, one of PARTS; parts that share a source appear once.
      sheet: The PNG file that is to show groups of near duplicates; it is removed if there are none.
    """
    names = np.concatenate([survey.names for survey in surveys.values()])
    parts = np.repeat(np.array(list(surveys)), [len(survey.names) for survey in surveys.values()])
    labels = np.concatenate([_label_names(survey) for survey in surveys.values()])

    def show(group: np.ndarray) -> list[str]:
        return [names[i] if labels[i] is None else f"{names[i]} ({labels[i]})" for i in group]

    exact, near, series = find_duplicates(list(surveys.values()))
    look = f"Look at these, side by side in {sheet}; where they are one picture, "
    yield from _within(exact, parts, show, "duplicates", "are exact copies of another one", 0, "")
    yield from _within(
        near, parts, show, "near duplicates", "look nearly the same as another one", _MAX_NEAR_SHARE, look
    )
    for groups, kind, doubt in ((exact, "exactly the same", ""), (near, "nearly the same", look)):
        if leaks := _leaks(groups, parts):
            count = len({i for group in leaks for i in group if parts[i] == "test"})
            yield Finding(
                "warn", "leak", f"{count:,} test images are {kind} as a training image.",
                _advise(doubt, "remove one side: accuracies on images seen in training are too optimistic."),
                [show(group) for group in leaks],
            )  # fmt: skip
        if conflicts := _conflicts(groups, labels):
            yield Finding(
                "warn", "label conflict", f"{len(conflicts):,} images that are {kind} have different labels.",
                _advise(doubt, "decide which label is right, and remove the other file."),
                [show(group) for group in conflicts],
            )  # fmt: skip
    if series:
        yield _series(series, [show(group) for group in series], sheet)
    kinds = [f"{part} {label}" for part, label in zip(parts, labels, strict=True)]
    first = [*_leaks(near, parts), *_conflicts(near, labels)]  # What does harm comes first.
    _draw(list(surveys.values()), [*first, *near, *series], kinds, sheet)


def _series(series: Groups, shown: list[list[str]], sheet: pathlib.Path) -> Finding:
    """Images of which too many look alike to tell copies among them."""
    return Finding(
        "info", "series",
        f"{sum(map(len, series)):,} images look nearly the same as others, in sets of more than {MAX_COPIES}.",
        f"Look at some of them in {sheet}: they may differ in little, such as labels in their number, or be many "
        "copies of one picture. The other findings do not count them.", shown,
    )  # fmt: skip


def _advise(doubt: str, advice: str) -> str:
    """The advice as a sentence, after what to look at first, if that is in doubt."""
    return doubt + advice if doubt else advice[0].upper() + advice[1:]


def _leaks(groups: Groups, parts: np.ndarray) -> Groups:
    return [group for group in groups if {"test"} < set(parts[group])]


def _conflicts(groups: Groups, labels: np.ndarray) -> Groups:
    return [group for group in groups if len(set(labels[group]) - {None}) > 1]


def _within(
    groups: Groups,
    parts: np.ndarray,
    show: Callable[[np.ndarray], list[str]],
    topic: str,
    text: str,
    share: float,
    doubt: str,
) -> Iterator[Finding]:
    """Duplicates within each part."""
    for part in dict.fromkeys(parts):
        total = int((parts == part).sum())
        inside = [group[parts[group] == part] for group in groups]
        inside = [group for group in inside if len(group) > 1]
        count = sum(len(group) - 1 for group in inside)
        advice = "keep one of each group: the contrastive loss pushes copies apart as if they were different images."
        if part != "train":
            advice = "keep one of each group: copies count twice in the accuracies."
        if inside:
            yield Finding(
                "warn" if count > share * total else "info", topic,
                f"{count:,} of the {total:,} images {PARTS[part]} ({count / total:.1%}) {text}.",
                _advise(doubt, advice), [show(group) for group in inside],
            )  # fmt: skip


def _draw(surveys: Sequence[Survey], groups: Groups, kinds: Sequence[str], sheet: pathlib.Path) -> None:
    """Writes the sheet of the first groups, with the first images of each; images of different kinds first."""
    sheet.unlink(missing_ok=True)
    groups = list({tuple(group): _varied(group, kinds)[:_SHOWN_IMAGES] for group in groups}.values())[:_SHOWN_GROUPS]
    if not groups:
        return
    images = np.unique(np.concatenate(groups))
    pictures = dict(zip(images.tolist(), look_again(surveys, images, _shrink), strict=True))
    names, heights, widths = (
        np.concatenate([getattr(survey, field) for survey in surveys]) for field in ("names", "heights", "widths")
    )
    panels = [
        [(pictures[i], f"{names[i]}\n{kinds[i].replace(' None', '')}, {widths[i]}x{heights[i]}", heights[i] / widths[i])
         for i in group.tolist()]
        for group in groups
    ]  # fmt: skip
    write_groups(panels, _SHOWN_IMAGES, sheet)


def _varied(group: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """The group in another order: one image of every kind, then the second of every kind, and so on."""
    seen: collections.Counter[str] = collections.Counter()
    turns = []
    for image in group:
        turns.append(seen[kinds[image]])
        seen[kinds[image]] += 1
    return group[np.argsort(turns, kind="stable")]


def _shrink(images: tf.Tensor) -> tf.Tensor:
    shrunk = tf.image.resize(images, [_SHOWN_SIZE_PX] * 2, tf.image.ResizeMethod.AREA)
    return tf.cast(tf.round(shrunk), tf.uint8)


def _label_names(survey: Survey) -> np.ndarray:
    """The name of the class of every image, object [N]; None where it is unknown."""
    if survey.labels is None:
        return np.full(len(survey.names), None, object)
    names = classes.count(survey.labels, survey.class_names)
    return np.array([*names, None], object)[survey.labels]  # An unknown label is -1.
