"""Reads weights files: those of the public SimCLR reference implementation (google-research/simclr), and our own.

Variables are matched by structure, not by name. Both implementations number layers in the order of creation, and a
block creates its shortcut before its branch. So the n-th convolution of the reference's encoder is the n-th one here,
and likewise for batch norm and dense layers, whatever surrounds the numbers. Layers of other kinds keep their names,
and so do those that are numbered anew in every layer around them. Of the numbers at the ends of these names, only the
order counts, because Keras counts on when it makes another model. The part of the model that a variable belongs to
follows from its key in our own checkpoints, and from its name in other files.
"""

import collections
import os
import pathlib
import re
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from tf_simclr import files
from tf_simclr.keras import keras
from tf_simclr.models.momentum import MomentumSimCLR
from tf_simclr.runs import object_graph
from tf_simclr.runs.checkpoint_list import list_checkpoints

# Where a variable belongs: part of the model, kind of layer, number of the layer among its kind, role in the layer.
Place = tuple[str, str, int, str]
Shape = tuple[int, ...]


# The keys of the parts in our own checkpoints, which TensorFlow makes of the attributes of a model.
_OWN_PART = re.compile(r"(?:model/)?(encoder|projection_head|(?:online_)?classifier|momentum_weights|memory)/")


class Stored(NamedTuple):
    """A variable in a file: its full name, its key and its shape."""

    name: str
    key: str
    shape: Shape


PARTS = ENCODER, HEAD, CLASSIFIER = "encoder", "projection_head", "classifier"
# SimCLR v2 was trained with a momentum encoder and a memory of its projections, and left both in its checkpoints. So
# does `MomentumSimCLR`. Behind its scope, the name of a moving average is that of the variable that it follows.
MOMENTUM, MEMORY = "momentum ", "memory"
_MOMENTUM_SCOPE, _MEMORY_SCOPE = re.compile(r"(?:^|(?<=/))ema[^/]*/"), re.compile(r"(?:^|/)memory[^/]*/")
_SCOPES = {
    HEAD: re.compile(r"(?:^|/)(?:projection_head(?:_\d+)?|head_contrastive)/"),
    CLASSIFIER: re.compile(r"(?:^|/)(?:head_supervised|linear_classifier)/"),
}
_NUMBERED = re.compile(r"(.*?)(?:_(\d+))?")
_LAYER = re.compile(
    r"(?:.*/)?(?:sync_)?(conv2d|batch_normalization|layer_normalization|dense|linear_classifier)(?:_(\d+))?/([^/]+)"
)
_HEAD_LAYER = re.compile(r"(?:^|/)n?l_(\d+)/")
# A student's way to its teacher's representations, which has no use without the teacher.
_TEACHER_MAP = re.compile(r"(?:^|/)teacher_map/")


def load_weights(
    path: str | os.PathLike[str],
    encoder: keras.Model,
    projection_head: keras.layers.Layer | None = None,
    classifier: keras.layers.Layer | None = None,
    momentum: MomentumSimCLR | None = None,
) -> None:
    """Loads weights and batch-norm statistics into all given parts or, if one does not fit, into none.

    The log says which parts of the file are loaded and which are skipped.

    Args:
      path: What `find_checkpoint` takes.
      encoder: Gets the file's encoder.
      projection_head: Gets the file's projection head; must be built.
      classifier: Gets the file's classifier; must be built.
      momentum: The model of encoder and head. Its moving average gets the file's, or else starts from the weights that
        are loaded; its memory gets the file's if that has the same size.

    Raises:
      FileNotFoundError: If there is no weights file.
      ValueError: If the variables of a part, or their shapes, differ from the file's. The error lists all of them.
    """
    reader, in_file = open_weights(path)
    parts = {ENCODER: encoder, HEAD: projection_head, CLASSIFIER: classifier}
    in_model: dict[Place, tf.Variable] = {}
    for part, layer in parts.items():
        variables = getattr(layer, "variables", ())
        by_name = {_full_name(variable.name.removesuffix(":0"), part): variable for variable in variables}
        in_model |= {place: by_name[name] for place, name in arrange(by_name, part).items()}
    averages = {} if momentum is None else _averages(momentum, in_model, in_file)
    given = {part for part, layer in parts.items() if layer is not None} | {place[0] for place in averages} - {MEMORY}
    asked = {place: stored for place, stored in in_file.items() if place[0] in given or place in averages}
    _check_fit(path, asked, in_model | averages)

    for place, variable in in_model.items():
        variable.assign(reader.get_tensor(asked[place].key))
    if momentum is not None:
        momentum.follow_anew()
    for place, variable in averages.items():
        variable.assign(reader.get_tensor(asked[place].key))
    for done, places in (("Loaded", asked.keys()), ("Skipped", in_file.keys() - asked.keys())):
        for part, count in sorted(collections.Counter(place[0] for place in places).items()):
            logging.info("%s: the %d variables of the %s in %s", done, count, part, os.fspath(path))


def _averages(
    momentum: MomentumSimCLR, in_model: dict[Place, tf.Variable], in_file: dict[Place, Stored]
) -> dict[Place, tf.Variable]:
    """The variables of the model's moving average, of the parts that the file has, and its memory, by place."""
    parts = {place[0] for place in in_file}
    average_of = dict(zip(map(id, momentum.followed), momentum.momentum_weights, strict=True))
    found = {
        (MOMENTUM + place[0], *place[1:]): average_of[id(variable)]
        for place, variable in in_model.items()
        if MOMENTUM + place[0] in parts and id(variable) in average_of
    }
    size = tuple(momentum.memory.shape)
    memories = [place for place, stored in in_file.items() if place[0] == MEMORY and stored.shape == size]
    return found | dict.fromkeys(memories[:1], momentum.memory)


def _check_fit(path: str | os.PathLike[str], asked: dict[Place, Stored], in_model: dict[Place, tf.Variable]) -> None:
    """Raises a `ValueError` that lists all variables that differ between a file and a model."""
    problems = []
    for place in sorted(asked.keys() | in_model.keys()):
        there = f"{asked[place].name} {asked[place].shape}" if place in asked else "nothing"
        here = f"{in_model[place].name} {tuple(in_model[place].shape)}" if place in in_model else "nothing"
        if "nothing" in (there, here) or asked[place].shape != tuple(in_model[place].shape):
            problems.append(f"the file has {there}, the model has {here}")
    if problems:
        raise ValueError(f"{os.fspath(path)} does not fit the model: {'; '.join(problems)}")


def digest(path: str | os.PathLike[str], parts: Collection[str] = (ENCODER,)) -> str:
    """The digest of the encoder in a weights file: of the places, shapes and values of its variables.

    Args:
      path: What `find_checkpoint` takes.
      parts: The parts of the model in place of the encoder.

    Raises:
      FileNotFoundError: If there is no weights file.
      ValueError: If it cannot be read.
    """
    reader, in_file = open_weights(path)
    found = sorted((place, stored) for place, stored in in_file.items() if place[0] in parts)
    values = (f"{place} {stored.shape} {files.digest(reader.get_tensor(stored.key))}" for place, stored in found)
    return files.digest("\n".join(values).encode())


def find_checkpoint(path: str | os.PathLike[str]) -> str:
    """The prefix of the checkpoint that a path points to.

    Args:
      path: A SavedModel, the prefix of a checkpoint, a folder of checkpoints, or the folder of a run of this package;
        the newest one, if a folder holds several checkpoints.

    Raises:
      FileNotFoundError: If the path is none of these.
      ValueError: If TensorFlow cannot read what is there.
    """
    given = os.fspath(path)
    files.check_file_system(given, "checkpoint")
    path = files.for_tensorflow(given)
    if tf.io.gfile.exists(os.path.join(path, "saved_model.pb")):
        return os.path.join(path, "variables", "variables")
    if tf.io.gfile.exists(f"{path}.index"):
        return path
    place = pathlib.Path(path)
    if of_run := list_checkpoints(place.parent if place.name == "checkpoints" else place):
        return of_run[max(of_run)]
    for folder in (os.path.join(path, "checkpoints"), path):
        newest = tf.train.latest_checkpoint(folder)
        if newest is not None:
            return newest
    raise FileNotFoundError(
        "Found no weights: give a SavedModel, a checkpoint, a folder of checkpoints or a run's folder. "
        f"Received: {given}"
    )


def arrange(names: Iterable[str], part: str | None = None) -> dict[Place, str]:
    """The full names of a model's variables, by place.

    Args:
      names: Full names, such as "resnet/conv2d_fixed_padding_2/conv2d_2/kernel" or "conv2d_2/kernel".
      part: The part of the model that all of them belong to; by default inferred from the names.

    Raises:
      ValueError: If two variables have the same place.
    """
    parsed = {name: _parse(name, part) for name in names}
    counts = collections.Counter(parsed.values())
    crowded = {place[:2] for place, count in counts.items() if count > 1}
    parsed = {name: _by_name(name, place[0]) if place[:2] in crowded else place for name, place in parsed.items()}
    numbers = collections.defaultdict(set)
    for place, kind, number, _ in parsed.values():
        numbers[place, kind].add(number)
    order = {group: sorted(found) for group, found in numbers.items()}
    places: dict[Place, str] = {}
    for name, (place, kind, number, leaf) in parsed.items():
        key = (place, kind, order[place, kind].index(number), leaf)
        if key in places:
            raise ValueError(f"Two variables map to the same place in the model. Received: {places[key]} and {name}")
        places[key] = name
    return places


def _parse(name: str, part: str | None) -> tuple[str, str, tuple[int, ...], str]:
    """The part, the kind of layer, the key that sorts the layers of a kind, and the role in the layer."""
    if part is None and _MEMORY_SCOPE.search(name):
        part = MEMORY
    if part is None:
        part = _named_part(name) or ENCODER
        if _MOMENTUM_SCOPE.search(name):
            part, name = MOMENTUM + part, _MOMENTUM_SCOPE.sub("", name)
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return _by_name(name, part)
    # TensorFlow 1 restarts the numbers in every layer of the head.
    head_layer = _HEAD_LAYER.search(name)
    number = (int(head_layer[1]) if head_layer else 0, int(layer[2] or 0))
    return part, layer[1].replace("linear_classifier", "dense"), number, layer[3]


def _named_part(name: str) -> str | None:
    return next((part for part, scope in _SCOPES.items() if scope.search(name)), None)


def _full_name(name: str, part: str) -> str:
    """The full name of a variable: Keras leaves those that a model owns itself, not by a layer, without a scope."""
    return name if "/" in name else f"{part}/{name}"


def _by_name(name: str, part: str) -> tuple[str, str, tuple[int, ...], str]:
    """The same for a layer that keeps its name, but for the numbers."""
    scope, _, leaf = name.rpartition("/")
    found = [_NUMBERED.fullmatch(one) for one in scope.split("/")]
    stems, numbers = zip(*((one[1], int(one[2] or -1)) for one in found if one), strict=True)
    return part, "/".join(stems), numbers, leaf


def open_weights(path: str | os.PathLike[str]) -> tuple[Any, dict[Place, Stored]]:
    """Opens a weights file; returns its reader and the model's variables in it."""
    prefix = find_checkpoint(path)
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError) as error:
        raise ValueError(f"TensorFlow cannot read the checkpoint ({error}). Received: {prefix}") from None
    shapes = reader.get_variable_to_shape_map()
    names = object_graph.names_by_key(reader) or {name: name for name in shapes}
    found = _arrange_ours(names, reader) or _arrange_foreign(names)
    return reader, {place: Stored(names[key], key, tuple(shapes[key])) for place, key in found.items()}


def _arrange_foreign(names: dict[str, str]) -> dict[Place, str]:
    """Keys by place, in a file whose names say what is where."""
    keys = _by_unique_name(names)
    # Counters and metrics belong to no layer; entries below a variable are the optimizer's, or moving averages.
    told = [
        name for name in keys if "/" in name and name.rpartition("/")[0] not in keys and not _TEACHER_MAP.search(name)
    ]
    return {place: keys[name] for place, name in arrange(told).items()}


def _arrange_ours(names: dict[str, str], reader: Any) -> dict[Place, str]:
    """Keys by place, in a checkpoint of ours; empty for any other file."""
    parts: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for key, name in names.items():
        found = _OWN_PART.match(key)
        part = found[1].removeprefix("online_") if found else _named_part(name)  # The heads may have other keys.
        if part is not None:
            parts[part][key] = name
    if ENCODER not in parts:
        return {}
    # The moving average follows the encoder's variables, then the head's.
    types = reader.get_variable_to_dtype_map()
    num_followed = sum(types[key].is_floating for key in parts[ENCODER])
    for key, name in parts.pop("momentum_weights", {}).items():
        part = ENCODER if int(key.partition("momentum_weights/")[2].partition("/")[0]) < num_followed else HEAD
        parts[MOMENTUM + part][key] = name.removeprefix("ema_model/")
    places: dict[Place, str] = {}
    for part, in_part in parts.items():
        layer = part.removeprefix(MOMENTUM)
        keys = _by_unique_name({key: _full_name(name, layer) for key, name in in_part.items()})
        places |= {place: keys[name] for place, name in arrange(keys, part).items()}
    return places


def _by_unique_name(names: dict[str, str]) -> dict[str, str]:
    """Keys by full name."""
    keys: dict[str, str] = {}
    for key, name in names.items():
        if "/" in name and keys.setdefault(name, key) != key:
            raise ValueError(f"Two variables have the name {name}. Received: {keys[name]} and {key}")
    return keys
