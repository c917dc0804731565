"""The report of one run: gathers what its folder says and fills the page."""

import pathlib
from collections.abc import Callable
from typing import Any

from tf_simclr import files
from tf_simclr.metrics import diagnosis
from tf_simclr.report import curves, facts, gallery, images, labels, page, verdict
from tf_simclr.report.charts import Row, intervals
from tf_simclr.report.folder import Run, read_run

# In the run's folder.
FILE = "report.html"

# The sheet of views that a training writes, or else that of a check; and the most bytes that go into a page.
_VIEWS = ("views.png", "check_views.png")
_MOST_BYTES_OF_VIEWS = 3_000_000
_SEVERITIES_OF_DISEASES = {"error": "fail", "warning": "warn"}
_SEVERITIES = {"fail": "Failed", "warn": "Warning", "pass": "Passed", "info": "Note"}


def write_report(folder: pathlib.Path, output: pathlib.Path | None = None) -> pathlib.Path:
    """Writes the report of the run in a folder, as `files.replacing` does, and returns its path.

    Args:
      folder: The run's folder, of which nothing else is changed.
      output: The file to write; without one, `report.html` in the folder.

    Raises:
      FileNotFoundError: If the folder is not one of a run.
      OSError: If the file cannot be written.
    """
    path = output or folder / FILE
    files.write_text(path, render(read_run(folder)))
    return path


def render(run: Run) -> str:
    """The page of a run."""
    troubles = list(run.troubles)

    def part(name: str, make: Callable[[], Any]) -> Any:
        """A part of the page; None if its file has another form than this version writes."""
        try:
            return make()
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            troubles.append(f"The {name} cannot be shown: its file is of another version ({type(error).__name__}).")
            return None

    judged = part("accuracies", lambda: verdict.judge(run.result))
    values = {
        "title": run.name,
        "subtitle": facts.subtitle(run),
        "progress": facts.progress(run),
        "verdict": judged,
        "accuracies": verdict.accuracies(run.result),
        "verdict_chart": _verdict_chart(judged),
        "curves": part("curves", lambda: curves.of_metrics(run.metrics, run.speed)),
        "last": run.metrics[-1] if run.metrics else {},
        "views": part("sheet of views", lambda: _views(run.folder, troubles)),
        "map_data": part("map", lambda: run.images and images.to_page(run.images)),
        "sprite": run.images and run.images.sprite and images.data_uri(run.images.sprite, "jpeg"),
        "gallery": part("gallery", lambda: run.images and gallery.gallery(run.images)),
        "confusions": part("confusion matrix", lambda: labels.confusions(run)),
        "efficiency": part("label efficiency", lambda: labels.efficiency(run.result.get("label_efficiency", []))),
        "health": part("health", lambda: curves.of_health(run.health)),
        "diagnosis": part("diagnosis", lambda: _diagnosis(run)),
        "findings": part("data check", lambda: _findings(run.check)),
        "settings": run.settings and facts.changed_settings(run.settings),
        "environment": facts.environment(run),
        "commands": facts.commands(run),
    }
    return page.render("run.html", script="map.js", run=run, troubles=troubles, **values)


def _verdict_chart(judged: verdict.Verdict | None) -> Any:
    """The accuracies of the headline's protocol with their intervals, the best encoder's first."""
    if judged is None:
        return None
    best_first = sorted(judged.accuracies, key=lambda one: -one.value)
    rows = [Row(one.name, one.low, one.value, one.high) for one in best_first]
    protocol = f"; frozen encoders: {judged.protocol}" if judged.is_frozen else ""
    return intervals(f"Top-1 accuracy on {judged.num_images:,} test images{protocol}", rows, percent=True)


def _views(folder: pathlib.Path, troubles: list[str]) -> str | None:
    """The sheet of views as an address; None if there is none, or, which is added to `troubles`, if it is too large."""
    for path in (folder / name for name in _VIEWS if (folder / name).is_file()):
        if path.stat().st_size <= _MOST_BYTES_OF_VIEWS:
            return images.data_uri(path.read_bytes(), "png")
        troubles.append(f"{path.name} is too large for a page that is sent around, and is left out.")
    return None


def _diagnosis(run: Run) -> list[dict[str, Any]]:
    """What is wrong with the run by its health, in the form of `_findings`."""
    return [
        {"severity": severity, "title": _SEVERITIES[severity], "topic": one.name, "found": one.sentence,
         "advice": one.advice, "details": []}
        for one in diagnosis.diagnose(run.health, run.metrics)
        for severity in [_SEVERITIES_OF_DISEASES[one.severity]]
    ]  # fmt: skip


def _findings(check: Any) -> list[dict[str, Any]]:
    """What a check found, the worst first, each with the title of its severity."""
    return [
        {name: one[name] for name in ("severity", "topic", "found", "advice", "details")}
        | {"title": _SEVERITIES[one["severity"]]}
        for one in check.get("findings", [])
    ]
