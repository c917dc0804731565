"""The rules that let a stock TensorFlow Serving serve an export, checked before it is published."""

import contextlib
import os
import pathlib
import re
import sys
from collections.abc import Collection, Iterator

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from tf_simclr.export.directory import CARD
from tf_simclr.export.warmup import WARMUP_FILE

_DTYPES = {tf.float32, tf.bool, tf.string}
_CHUNK_BYTES = 1 << 26
_MAX_PATH_BYTES = 1 << 12


def audit(directory: str, *, signatures: Collection[str], has_warmup: bool) -> None:
    """Checks the files of an export.

    Args:
      directory: The export, before it is published.
      signatures: The names of all its signatures.
      has_warmup: Whether it must have warm-up requests.

    Raises:
      ValueError: If rules are broken; the error lists all of them.
    """
    with tf.io.gfile.GFile(os.path.join(directory, "saved_model.pb"), "rb") as file:
        meta_graph = saved_model_pb2.SavedModel.FromString(file.read()).meta_graphs[0]
    expected_files = [CARD, *([WARMUP_FILE] if has_warmup else [])]
    broken = [
        *broken_operations(meta_graph),
        *broken_signatures(meta_graph, signatures),
        *(f"{name} is missing" for name in expected_files if not tf.io.gfile.exists(os.path.join(directory, name))),
        *paths_in_files(directory, machine_paths(directory)),
    ]
    if broken:
        raise ValueError(f"The audit failed, so nothing was published: {'; '.join(broken)}. Received: {directory}")


def broken_operations(meta_graph: meta_graph_pb2.MetaGraphDef) -> Iterator[str]:
    """Operations that a stock server lacks or does not run."""
    library = meta_graph.graph_def.library.function
    nodes = [*meta_graph.graph_def.node, *(node for function in library for node in function.node_def)]
    for operation in sorted({node.op for node in nodes}):
        if ">" in operation:
            yield f"the operation {operation} is custom, and servers do not know it"
        elif "PyFunc" in operation:
            yield f"the operation {operation} runs Python, which servers do not have"
    if any(holder.attr["_XlaMustCompile"].b for holder in (*nodes, *library)):
        yield "a function must be compiled by XLA (_XlaMustCompile), which servers switch off"


def broken_signatures(meta_graph: meta_graph_pb2.MetaGraphDef, expected: Collection[str]) -> Iterator[str]:
    """Missing and unexpected signatures, and tensors whose type or shape a server cannot answer or batch."""
    found = {name: value for name, value in meta_graph.signature_def.items() if not name.startswith("__")}
    if set(found) != set(expected):
        yield f"the signatures must be {', '.join(sorted(expected))}, but are {', '.join(sorted(found))}"
    for name, signature in sorted(found.items()):
        for key, tensor in sorted([*signature.inputs.items(), *signature.outputs.items()]):
            shape = tensor.tensor_shape
            if shape.unknown_rank or not shape.dim or shape.dim[0].size != -1:
                yield f"axis 0 of {key} in the signature {name} must be open, for batches of any size"
        for key, tensor in sorted(signature.outputs.items()):
            if (dtype := tf.dtypes.as_dtype(tensor.dtype)) not in _DTYPES:
                yield f"the output {key} of the signature {name} is {dtype.name}, which REST cannot carry"


def machine_paths(directory: str) -> set[str]:
    """Paths that reveal something about this machine or its user, such as those of the code, the run and Python."""
    run = pathlib.Path(directory).absolute().parent
    source = pathlib.Path(__file__).parents[2]
    places = [source, run, run.parent, pathlib.Path(sys.prefix)]
    for place in (pathlib.Path.home, pathlib.Path.cwd):
        with contextlib.suppress(RuntimeError, FileNotFoundError):  # This user has no home, or the folder is gone.
            places.append(place())
    paths = {str(path) for place in places for path in (place, place.resolve())}
    return paths - {"/"}


def paths_in_files(directory: str, paths: Collection[str]) -> Iterator[str]:
    """The files that contain one of the paths."""
    for folder, _, names in tf.io.gfile.walk(directory):
        for name in names:
            file = os.path.join(folder, name)
            yield from (f"{name} contains the path {path}" for path in sorted(paths) if _contains(file, path))


def mentions(text: str, path: str) -> bool:
    """Whether a text contains a path, as `audit` would find it in a file."""
    return _pattern(path)[1].search(os.fsencode(text)) is not None


def _pattern(path: str) -> tuple[bytes, re.Pattern[bytes]]:
    needle = os.fsencode(path if path.count("/") > 1 else f"{path}/")
    name = rb"[\w.-]"
    return needle, re.compile(rb"(?<!" + name + name + rb")" + re.escape(needle))


def _contains(file: str, path: str) -> bool:
    """Whether a file contains a path; "/root/" inside the name of a node, such as "model/root/conv", does not count."""
    needle, pattern = _pattern(path)
    with tf.io.gfile.GFile(file, "rb") as opened:
        content = b""
        while chunk := opened.read(_CHUNK_BYTES):
            content = content[-_MAX_PATH_BYTES:] + chunk
            if needle in content and pattern.search(content):
                return True
    return False
