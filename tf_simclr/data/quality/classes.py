"""The classes of a set of images: how many each has, and signs that they are not classes at all."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from tf_simclr.data.sources.splits import TRAIN, role_of

# So many images tell which folders the classes have.
_SAMPLED = 20_000
# So many are listed by name.
_LISTED = 100
# So many classes, half of which have so few images, are doubted.
_MANY_CLASSES, _FEW_IMAGES = 1000, 20
# 2019, 2019-05, 20190531, 2019_05_31
_DATE = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}")


def count(labels: np.ndarray, class_names: Sequence[str] | None) -> dict[str, int]:
    """The number of images in every class; `labels` are int64 [N], -1 for an image without one."""
    names = class_names or tuple(map(str, range(labels.max() + 1)))
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    return {name: int(number) for name, number in zip(names, counts, strict=True)}


def listed(names: Sequence[str]) -> str:
    """Names, joined by commas; of many, the first ones, and how many more there are."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def doubts(class_names: Sequence[str], labels: np.ndarray | None, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields (what looks wrong, what to do) if the classes look like something else.

    Args:
      class_names: The names of the classes.
      labels: int64 [N], -1 for an image without one, or None if they are not known yet.
      names: N paths of files, or other names.
    """
    roles = {name: role for name in class_names if (role := role_of(name)) is not None}
    words = {word for word, _ in roles.values()}
    # Words beside the roles may make classes of them, such as test_tube, unless there is a part to train on.
    is_split = TRAIN in words and len(words) > 1
    found = [name for name, (_, rest) in roles.items() if is_split or not rest]
    # "train" among other classes may be one.
    if found and ([roles[name] for name in found] != [(TRAIN, ())] or len(class_names) == 2):
        yield (
            f"{', '.join(found)}: the names of parts of a data set, not of classes.",
            "Say where the parts are with --data_dir and --eval_data_dir.",
        )
    dates = [name for name in class_names if _DATE.fullmatch(name)]
    if len(dates) > 1:
        yield (
            f"{listed(dates)}: dates, not classes, unless you want to tell them apart.",
            "If the folders in them are the classes, join them with commas: --data_dir=PHOTOS/2019,PHOTOS/2020. If "
            "there are no classes, use --use_labels=False.",
        )
    if labels is not None and len(class_names) > _MANY_CLASSES:
        half = int(np.median(list(count(labels, class_names).values())))
        if half < _FEW_IMAGES:
            yield (
                f"{len(class_names):,} classes, half of which have at most {half} images, as if they were something "
                "else, such as customers or days.",
                "If so, use --use_labels=False.",
            )
    common = [] if labels is None or is_split else _common_folders(class_names, labels, names)
    if len(common) > 1:
        yield (
            f"Every class has the same folders ({', '.join(common)}), as if the classes were domains.",
            "If those are the classes, join the folders above with commas: --data_dir=SET/photo,SET/sketch.",
        )


def _common_folders(class_names: Sequence[str], labels: np.ndarray, names: Sequence[str]) -> list[str]:
    """The names of the folders that every class folder has, from a sample of the images."""
    folders: dict[str, set[str]] = {name: set() for name in class_names}
    for index in np.unique(np.linspace(0, len(names) - 1, _SAMPLED).astype(int)):
        if labels[index] >= 0:
            class_name = class_names[labels[index]]
            inside, slash, _ = f"/{names[index]}".partition(f"/{class_name}/")[2].partition("/")
            folders[class_name] |= {inside} if slash else set()
    return sorted(set.intersection(*folders.values()))
