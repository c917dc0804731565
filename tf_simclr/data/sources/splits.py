"""Finds the parts of a data set that the names of its folders tell: train/, val/, test/, unlabelled/."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import logging

from tf_simclr.data.files import walk
from tf_simclr.data.files.names import counted
from tf_simclr.data.sources.tfrecord import are_tfrecords

TRAIN = "train"
UNLABELLED = "unlabelled"
# The parts to test on; the first one that has labels is taken.
EVALUATION = ("test", "eval", "val", "query", "gallery")

_ROLES = {
    word: role
    for role, words in {
        TRAIN: "train training trn tr trainval learn",
        "test": "test testing tst te ts holdout",
        "eval": "eval evaluation",
        "val": "val valid validation va dev development",
        "query": "query",
        "gallery": "gallery",
        UNLABELLED: "unlabelled unlabeled unsup pred prediction predict",
    }.items()
    for word in words.split()
}
# What is written beside the role: train_set, TestData, images-val.
_FILLERS = ("set", "dataset", "data", "images", "image", "imgs", "img", "split", "folder", "part")
_WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


class Split(NamedTuple):
    """The folders of a data set's parts.

    Attributes:
      train: Images to train on.
      evaluation: Folders to test on, the best choice first.
      unlabelled: More folders to train on, whose images have no labels.
    """

    train: str
    evaluation: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()


def role_of(name: str) -> tuple[str, tuple[str, ...]] | None:
    """(role, remaining words) of a folder's name, or None if it names no part of a data set.

    >>> role_of("seg_train"), role_of("TestSet2"), role_of("train_val2017"), role_of("trainer")
    (('train', ('seg',)), ('test', ()), ('train', ()), None)
    """
    words = []
    for word in map(str.lower, _WORD.findall(name)):
        parts = [word.removesuffix(filler) for filler in _FILLERS if word.removesuffix(filler) in _ROLES]
        words += parts[:1] or [word]
    roles = [_ROLES[word] for word in words if word in _ROLES]
    if roles == [TRAIN, "val"]:  # to train on both
        roles = [TRAIN]
    if len(roles) != 1:
        return None
    return roles[0], tuple(word for word in words if word not in _ROLES and word not in _FILLERS)


def split_folders(folder: str | os.PathLike[str]) -> Split:
    """Finds the parts of a folder by the names of its subfolders, or those of its only subfolder.

    At least two parts that are named alike, one of them to train on, and no other folder with images, are a split: then
    no folder is a class. So is a single folder to train on. "train" among other folders is a class. A part may lie in a
    folder of its own role once more (train/train). A part to test on without class folders belongs to `unlabelled`; a
    single folder that it shares with the part to train on is no class (train/images, test/images).

    Returns:
      The parts; for anything else, and for what is no folder, `folder` alone.

    Raises:
      ValueError: If some subfolders are named like parts, but do not make a split.
    """
    folder = os.fspath(folder)
    if not walk.is_folder(folder):
        return Split(folder)
    found = _find(folder)
    if found is None and (inner := _only_folder(folder)) is not None:
        found = _find(inner)
    return found or Split(folder)


def _find(folder: str) -> Split | None:
    """The parts among the subfolders of a folder."""
    names = sorted(entry.name for entry in walk.readable_entries(folder) if entry.is_folder)
    roles = {name: role for name in names if (role := role_of(name)) is not None}
    alike = [
        {name: role for name, (role, rest) in roles.items() if rest == affix}
        for affix in {rest for _, rest in roles.values()}
    ]
    alike = [group for group in alike if len(set(group.values())) > 1]
    if not alike and all(role != TRAIN for role, _ in roles.values()):
        return None
    names = [name for name in names if _holds_examples(os.path.join(folder, name))]
    parts = {name: roles[name][0] for name in names if any(name in group for group in alike)}
    if len(set(parts.values())) < 2 and _looks_split([roles.get(name) for name in names]):
        raise ValueError(_advise(folder, names, {roles[n][0]: os.path.join(folder, n) for n in names if n in roles}))
    if not alike:
        is_train = len(names) == 1 and names[0] in roles and roles[names[0]][0] == TRAIN
        return Split(_unnested(folder, names[0])) if is_train else None
    if not parts or (len(set(parts.values())) < 2 and len(parts) < len(names)):
        return None  # At most one of the parts has images.
    found = {role: os.path.join(folder, name) for name, role in parts.items()}
    if TRAIN not in found or len(found) < len(names):
        raise ValueError(_advise(folder, names, found))
    _log_loose_images(folder)
    return _sort({role: _unnested(folder, name) for name, role in parts.items()})


def _looks_split(roles: Sequence[tuple[str, tuple[str, ...]] | None]) -> bool:
    """Whether folders of these roles look like parts that need not be named alike: train_cleaned and test.

    Not so a few classes such as train_station and art_gallery among many others.
    """
    parts = [role for role in roles if role is not None]
    words = {word for word, _ in parts}
    is_clear = 2 * len(parts) >= len(roles) or any(not rest for word, rest in parts if word != UNLABELLED)
    return TRAIN in words and len(words) > 1 and is_clear


def _sort(found: dict[str, str]) -> Split:
    """Decides by their class folders which parts can be tested on."""
    train = found[TRAIN]
    evaluation = [found[role] for role in EVALUATION if role in found]
    unlabelled = [found[UNLABELLED]] if UNLABELLED in found else []
    if walk.holds_images(train):
        labelled = [part for part in evaluation if _has_classes(part) or _shares_a_class(train, part)]
        unlabelled += [part for part in evaluation if part not in labelled]
        evaluation = labelled
    return Split(train, tuple(evaluation), tuple(unlabelled))


def _class_folders(folder: str) -> Iterator[str]:
    """Yields the names of the folders that hold images."""
    for entry in walk.readable_entries(folder):
        if entry.is_folder and walk.holds_images(os.path.join(folder, entry.name)):
            yield entry.name


def _has_classes(folder: str) -> bool:
    return len(list(itertools.islice(_class_folders(folder), 2))) > 1


def _shares_a_class(train: str, part: str) -> bool:
    return _has_classes(train) and any(walk.is_folder(os.path.join(train, name)) for name in _class_folders(part))


def _holds_examples(folder: str) -> bool:
    return walk.holds_images(folder) or are_tfrecords(folder)


def _only_folder(folder: str) -> str | None:
    """The only subfolder with examples of a folder that has no image itself."""
    entries = (
        entry
        for entry in walk.readable_entries(folder)
        if not entry.is_folder or _holds_examples(os.path.join(folder, entry.name))
    )
    found = list(itertools.islice(entries, 2))
    return os.path.join(folder, found[0].name) if len(found) == 1 and found[0].is_folder else None


def _unnested(folder: str, name: str) -> str:
    """The folder of a part, or the only folder in it if that has the same role: seg_train/seg_train."""
    part = os.path.join(folder, name)
    inner = _only_folder(part)
    return inner if inner is not None and role_of(os.path.basename(inner)) == role_of(name) else part


def _log_loose_images(folder: str) -> None:
    loose = [entry.name for entry in walk.readable_entries(folder) if not entry.is_folder]
    if loose:
        logging.warning(
            "Left out %s beside the parts of %s, such as %s", counted(len(loose), "image"), folder, min(loose)
        )


def _advise(folder: str, names: Sequence[str], found: dict[str, str]) -> str:
    train = found.get(TRAIN, os.path.join(folder, "TRAIN"))
    test = next((found[role] for role in EVALUATION if role in found), os.path.join(folder, "TEST"))
    pattern = os.path.join(folder, "*")
    return (
        f"The folder holds parts of a data set, but not exactly one to train on with others to test on: name them with "
        f"--data_dir={train} --eval_data_dir={test}, or, if all its folders are classes, use --data_dir='{pattern}'. "
        f"Received: {', '.join(names)} in {folder!r}"
    )
