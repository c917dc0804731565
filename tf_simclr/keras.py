"""The one place that imports Keras.

tf_keras (Keras 2) is used because Keras 3 supports neither `MultiWorkerMirroredStrategy` nor, reliably,
`TPUStrategy`. TensorFlow 2.15, the last version that TensorFlow Addons works with, includes the same Keras.
"""

from typing import Any

import tensorflow as tf

if tuple(int(part) for part in tf.__version__.split(".")[:2]) >= (2, 16):
    import tf_keras as keras
else:
    from tensorflow import keras

__all__ = ["check_is_ours", "keras"]

# Other versions of Keras live in packages of these names.
_FOREIGN = {"keras", "tf_keras"} - {keras.Model.__module__.partition(".")[0]}


def check_is_ours(name: str, *values: Any) -> None:
    """Raises a `ValueError` if a value, called `name`, is of another version of Keras, which would fail in `fit`."""
    for kind in map(type, values):
        if any(base.__module__.partition(".")[0] in _FOREIGN for base in kind.__mro__):
            raise ValueError(
                f"{name} must be of the Keras 2 that this package uses, which is `import tf_keras as keras` (in "
                "TensorFlow 2.15, tf.keras), not of Keras 3: make it with that, or set TF_USE_LEGACY_KERAS=1 before "
                f"TensorFlow is imported, which turns tf.keras into it. Received: {kind.__module__}.{kind.__qualname__}"
            )
