"""What must hold for the export of a run, looked at before the training instead of after it."""

import collections
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from tf_simclr import builders
from tf_simclr.data import sources
from tf_simclr.data.files.names import in_print
from tf_simclr.export import audit, convert
from tf_simclr.export.publish import NUM_VERIFIED_IMAGES, card_settings, check_pca_dim, check_same_settings
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.settings import RunConfig

# The folders that a run writes in its own, by the time it has been exported.
_FOLDERS = ("checkpoints", "features", "saved_model", "converted")


def check(config: RunConfig, source: sources.Source, folder: pathlib.Path) -> None:
    """Raises a `ValueError` that says all that would stop the export; see `unmet`."""
    if problems := list(unmet(config, source, folder)):
        raise ValueError(f"The export at the end would fail: {'; '.join(problems)}")


def unmet(config: RunConfig, source: sources.Source, folder: pathlib.Path) -> Iterator[str]:
    """Says what would stop the export of a run that will train on these images.

    Args:
      config: The run.
      source: The images to train on.
      folder: The run's folder.

    Yields:
      Sentences, without the full stop.
    """
    yield from _packages(config)
    yield from _places(config, source, folder)
    yield from _temporary_files(config)
    yield from _names(config, source, folder)
    if config.export.pca_dim is not None:
        try:
            check_pca_dim(config, builders.build_encoder(config).output_shape[-1], source.num_examples)
        except ValueError as error:
            yield str(error)


def _packages(config: RunConfig) -> Iterator[str]:
    try:
        convert.check_formats(config.export.formats)
    except ValueError as error:
        yield str(error)


def _places(config: RunConfig, source: sources.Source, folder: pathlib.Path) -> Iterator[str]:
    """Folders that cannot be written, and an export that is there already."""
    for place in (folder / name for name in _FOLDERS):
        if not place.exists():
            continue
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            yield f"{place} must be a folder to write in ({error.strerror}). Received: {place}"
    step = config.total_steps(source.num_examples)
    target = folder / "saved_model" / str(step)
    if target.exists() and step not in list_checkpoints(folder):
        yield f"an export of step {step}, which is never replaced, exists before its weights: move it away. " + (
            f"Received: {target}"
        )
    elif target.exists():
        try:
            check_same_settings(target, config)
        except ValueError as error:
            yield str(error)


def _temporary_files(config: RunConfig) -> Iterator[str]:
    """Whether the images and embeddings of the verification find a place."""
    needed = 5 * NUM_VERIFIED_IMAGES * config.data.image_size**2 * 3  # uint8 and float32
    try:
        place = tempfile.gettempdir()
        free = shutil.disk_usage(place).free
    except OSError as error:
        yield f"temporary files need a folder, such as one that TMPDIR names ({error.strerror}). Received: none"
        return
    if free < needed:
        yield (
            f"temporary files need {needed / 1e6:.0f} MB in {place}, or in another folder that TMPDIR names. "
            f"Received: {free / 1e6:.0f} MB"
        )


def _names(config: RunConfig, source: sources.Source, folder: pathlib.Path) -> Iterator[str]:
    """Class names that cannot be told apart, and texts that carry a path of this machine into the export."""
    names = [in_print(name) for name in source.class_names or ()]
    doubled = sorted(name for name, count in collections.Counter(names).items() if count > 1)
    if doubled:
        yield f"the names of classes must differ where non-UTF-8 bytes are escaped. Received: {doubled[0]} twice"
    texts = {"a class": "\n".join(names), "export.license": config.export.license}
    texts |= {name: str(value) for name, value in card_settings(config).items()}
    for path in sorted(audit.machine_paths(str(folder / "saved_model" / "1"))):
        for name, text in texts.items():
            if audit.mentions(text, path):
                yield f"{name} must not name a path of this machine, which exports never contain. Received: {path}"
