"""Findings about the images of a run."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tf_simclr.check.findings import Finding
from tf_simclr.data.files import ignored
from tf_simclr.data.quality import classes
from tf_simclr.data.quality.duplicates import MIN_CONTRAST
from tf_simclr.data.quality.survey import Survey

# What the parts of `builders.Sources` are for, in the findings.
PARTS = {"train": "to train on", "probe": "for the classifiers of the evaluation", "test": "to test on"}

_MAX_IMBALANCE = 10
_MAX_SMALL_SHARE = 0.1


def statistics(survey: Survey) -> dict[str, Any]:
    """Counts, sizes, formats and classes, for `check.json`."""
    sizes, counts = np.unique(np.stack([survey.widths, survey.heights], axis=1), axis=0, return_counts=True)
    common = np.argsort(-counts, kind="stable")[:10]
    return {
        "images": len(survey.names),
        "formats": survey.formats,
        "shorter_side_px": _quantiles(np.minimum(survey.heights, survey.widths)),
        "longer_side_px": _quantiles(np.maximum(survey.heights, survey.widths)),
        "most_common_sizes": {f"{sizes[i, 0]}x{sizes[i, 1]}": int(counts[i]) for i in common},
        "classes": _class_counts(survey),
    }


def examine(
    surveys: Mapping[str, Survey], view_size: int, report: Mapping[str, Any], max_broken: float
) -> list[Finding]:
    """All findings about the images but those about copies, which are in `duplicates`.

    Args:
      surveys: By part of the run, one of PARTS; parts that share a source appear once.
      view_size: Height and width of the views in pixels.
      report: The content of `data_report.json`.
      max_broken: Share of the files that may be broken, in [0, 1].
    """
    findings = [_counts(surveys), *_classes(surveys), *_sizes(surveys["train"], view_size)]
    findings += [*_broken(report, max_broken), *_ignored(report), *_plain(surveys)]
    return findings


def _quantiles(values: np.ndarray) -> dict[str, int]:
    names = ("smallest", "median", "largest")
    return {name: int(value) for name, value in zip(names, np.quantile(values, [0, 0.5, 1]), strict=True)}


def _class_counts(survey: Survey) -> dict[str, int] | None:
    if survey.labels is None or not survey.is_labelled.any():
        return None
    return classes.count(survey.labels, survey.class_names)


def _counts(surveys: Mapping[str, Survey]) -> Finding:
    counts = ", ".join(f"{len(survey.names):,} {PARTS[part]}" for part, survey in surveys.items())
    sides = _quantiles(np.concatenate([np.minimum(s.heights, s.widths) for s in surveys.values()]))
    formats: dict[str, int] = {}
    for survey in surveys.values():
        formats |= {name: formats.get(name, 0) + count for name, count in survey.formats.items()}
    kinds = ", ".join(f"{count:,} {name}" for name, count in sorted(formats.items(), key=lambda item: -item[1]))
    size = f"from {sides['smallest']} to {sides['largest']} px, half of them up to {sides['median']}"
    if sides["smallest"] == sides["largest"]:
        size = f"{sides['median']} px for all of them"
    return Finding("info", "images", f"{counts}; shorter side {size}; {kinds}.")


def _classes(surveys: Mapping[str, Survey]) -> Iterator[Finding]:
    counts = {part: found for part, survey in surveys.items() if (found := _class_counts(survey)) is not None}
    if "test" not in counts:
        folders = {os.path.dirname(name) for name in surveys["train"].names}
        try:
            deepest = os.path.commonpath(folders)
        except ValueError:  # Some are absolute, some are not.
            deepest = ""
        is_above = deepest and deepest not in folders
        hint = f" If the folders in {deepest} are the classes, point --data_dir there." if is_above else ""
        yield Finding(
            "info", "labels", "The images have no labels, so there is nothing to evaluate after training.",
            f"Pretraining needs none; --eval_data_dir can add labelled images for the evaluation.{hint}",
        )  # fmt: skip
    for part, found in counts.items():
        survey = surveys[part]
        text = f"{len(found)} {PARTS[part]}: {classes.listed([f'{name} {count:,}' for name, count in found.items()])}"
        if min(found.values()) * _MAX_IMBALANCE >= max(found.values()):
            yield Finding("info", "classes", f"{text}.")
        else:
            yield Finding(
                "warn", "classes", f"{text}; some have more than {_MAX_IMBALANCE} times as many images as others.",
                "Read the accuracies with that in mind, or add images of the rare classes.",
                [f"{name}: {count:,}" for name, count in sorted(found.items(), key=lambda item: item[1])],
            )  # fmt: skip
        without = survey.names[~survey.is_labelled]
        if without.size:
            yield Finding(
                "warn", "labels", f"{without.size:,} of the {len(survey.names):,} images {PARTS[part]} have no label.",
                "They are trained on, and left out of the evaluation.", list(without),
            )  # fmt: skip
    train = surveys["train"]
    for text, advice in classes.doubts(list(counts.get("train", ())), train.labels, list(train.names)):
        yield Finding("warn", "classes", text, advice)


def _sizes(survey: Survey, view_size: int) -> Iterator[Finding]:
    shorter = np.minimum(survey.heights, survey.widths)
    small = np.flatnonzero(shorter < view_size)
    much = shorter < view_size / 2
    if not small.size:
        return
    found = f"{small.size:,} of {len(shorter):,} images are smaller than the views, {view_size} px"
    yield Finding(
        "warn" if much.mean() > _MAX_SMALL_SHARE else "info", "image size",
        f"{found}, {int(much.sum()):,} of them smaller than half of that; enlarging blurs their views.",
        f"Lower --image_size towards {max(8, int(np.median(shorter)) // 8 * 8)}, or remove the small images.",
        [f"{survey.names[i]}: {survey.widths[i]}x{survey.heights[i]}" for i in small[np.argsort(shorter[small])]],
    )  # fmt: skip


def _broken(report: Mapping[str, Any], max_broken: float) -> Iterator[Finding]:
    total, skipped = report["files"], report["skipped"]
    if skipped:
        fails = len(skipped) > max_broken * total
        yield Finding(
            "fail" if fails else "warn",
            "broken files",
            f"{len(skipped):,} of {total:,} files or records cannot be decoded"
            + (f", more than the {max_broken:.0%} at which a run stops." if fails else "; the run skips them."),
            "Repair or remove them" + (", or raise --max_broken_fraction." if fails else "."),
            [f"{entry['path']}: {entry['reason']}" for entry in skipped],
        )


def _ignored(report: Mapping[str, Any]) -> Iterator[Finding]:
    if counts := report.get("ignored"):
        yield Finding(
            "warn" if ignored.lost(counts) else "info", "other files", f"Ignored {ignored.describe(counts)}.",
            "Convert those that are images, or unpack them." if ignored.lost(counts) else "",
        )  # fmt: skip


def _plain(surveys: Mapping[str, Survey]) -> Iterator[Finding]:
    names = [name for survey in surveys.values() for name in survey.names[survey.looks.contrasts < MIN_CONTRAST]]
    if names:
        yield Finding(
            "warn", "plain images", f"{len(names):,} images, decoded without transparency, are a single colour.",
            "Look at these, and remove them: their views teach the encoder nothing.", names,
        )  # fmt: skip
