"""Files that are not images of a known format: how many of each suffix were ignored, in words."""

from collections.abc import Mapping

from tf_simclr.data.files.names import counted
from tf_simclr.data.formats import decode

# What commonly lies beside images and describes them; no image is lost with it.
_DESCRIPTIONS = {
    ".cfg", ".cls", ".csv", ".doc", ".docx", ".htm", ".html", ".json", ".jsonl", ".lock", ".log", ".md", ".pbtxt",
    ".pdf", ".py", ".rst", ".tsv", ".txt", ".url", ".xlsx", ".xml", ".xmp", ".yaml", ".yml",
}  # fmt: skip


def lost(ignored: Mapping[str, int]) -> dict[str, int]:
    """The suffixes that may belong to images or to archives of them, without those of descriptions."""
    return {suffix: count for suffix, count in ignored.items() if suffix not in _DESCRIPTIONS}


def describe(ignored: Mapping[str, int]) -> str:
    """Says which files were ignored, the most frequent first: {suffix, "" for none: number of files}."""
    images = lost(ignored)
    beside = {suffix: count for suffix, count in ignored.items() if suffix not in images}
    text = ""
    if images:
        formats = ", ".join(decode.IMAGE_SUFFIXES)
        count, verb = sum(images.values()), "is not an image" if sum(images.values()) == 1 else "are not images"
        text = f"{counted(count, 'file')} that {verb} of these formats ({formats}): {_list(images)}"
    if beside:
        count, verb = sum(beside.values()), "describes" if sum(beside.values()) == 1 else "describe"
        text += f"{', and ' if text else ''}{counted(count, 'file')} that {verb} images: {_list(beside)}"
    return text


def _list(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{suffix or 'without a suffix'} {count:,}" for suffix, count in ordered)
