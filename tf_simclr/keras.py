"""The one place that imports Keras.

tf_keras (Keras 2) is used because Keras 3 supports neither `MultiWorkerMirroredStrategy` nor, reliably,
`TPUStrategy`. TensorFlow 2.15, the last version that TensorFlow Addons works with, includes the same Keras.
"""

import tensorflow as tf

if tuple(int(part) for part in tf.__version__.split(".")[:2]) >= (2, 16):
    import tf_keras as keras
else:
    from tensorflow import keras

__all__ = ["keras"]
