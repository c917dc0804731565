"""Embeds the images in a folder with an exported encoder.

    python examples/feature_extractor.py runs/shapes/saved_model/313 photos

Writes embeddings.npz with the `path` and the `embedding`, float32 [F], of every image. Needs TensorFlow and NumPy, and
serving_client.py beside it.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from serving_client import find_files, import_quietly

BATCH_SIZE = 32


def load(directory: str) -> Callable[..., dict[str, Any]]:
    """The function of an exported encoder that embeds the contents of image files."""
    if not (pathlib.Path(directory) / "saved_model.pb").is_file():
        raise FileNotFoundError(f"An exported encoder is a folder with a saved_model.pb. Received: {directory!r}")
    tf = import_quietly("tensorflow")
    try:
        encode = tf.saved_model.load(directory).signatures["serving_default"]
        encode.structured_input_signature[1]["image_bytes"]
    except Exception as error:  # whatever TensorFlow says of a file that is damaged, or of another kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"No exported encoder that can be loaded: {directory!r} ({reason})") from error
    return lambda files: encode(image_bytes=tf.constant(files))


def main(arguments: list[str] | None = None) -> None:
    """Embeds the images that the command line names; ends in a sentence and exit status 2 if it cannot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("encoder", help="folder of the SavedModel")
    parser.add_argument("images", help="folder of images")
    options = parser.parse_args(arguments)
    try:
        paths = find_files([options.images])
        embed = load(options.encoder)
        batches = [paths[start : start + BATCH_SIZE] for start in range(0, len(paths), BATCH_SIZE)]
        answers = [embed([path.read_bytes() for path in batch]) for batch in batches]
        embedding = np.concatenate([answer["embedding"] for answer in answers])
        valid = np.concatenate([answer["valid"] for answer in answers])
        if not valid.any():
            raise ValueError(f"None of the {len(paths)} files is an image. Received: {options.images!r}")
        np.savez("embeddings.npz", path=np.array(paths, str)[valid], embedding=embedding[valid])
    except (OSError, ValueError) as error:
        parser.error(str(error))
    others = int((~valid).sum())
    print(
        f"embeddings.npz: {valid.sum()} embeddings of {embedding.shape[1]} features; "
        f"{others} " + ("file is not an image" if others == 1 else "files are not images")
    )


if __name__ == "__main__":
    main()
