"""Embeds the images in a folder with an exported encoder.

python examples/feature_extractor.py runs/shapes/saved_model/240 photos
"""

import pathlib
import sys

import numpy as np
import tensorflow as tf

encode = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
paths = sorted(path for path in pathlib.Path(sys.argv[2]).rglob("*") if path.is_file())
batches = [paths[start : start + 32] for start in range(0, len(paths), 32)]
answers = [encode(image_bytes=tf.constant([path.read_bytes() for path in batch])) for batch in batches]
embedding = np.concatenate([answer["embedding"] for answer in answers])
valid = np.concatenate([answer["valid"] for answer in answers])
np.savez("embeddings.npz", path=np.array(paths, str)[valid], embedding=embedding[valid])
print(
    f"embeddings.npz: {valid.sum()} embeddings of {embedding.shape[1]} features; {(~valid).sum()} files are not images"
)
