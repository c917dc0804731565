"""Loads exports in every way that TensorFlow offers, in a process without the package.

    python tests/support/load_export.py INPUTS.npz OUTPUTS.npz EXPORT ...

The inputs are `files` (string [n]), `pixels` (uint8 [n, H, W, 3]) and `floats` (float32 [n, S, S, 3]). The outputs are
those of all signatures, as "number of the export/way/signature/output".
"""

import pathlib
import sys

import numpy as np
import tensorflow as tf
from serving_session import Version, disable_xla

sys.modules["tf_simclr"] = None  # Makes all imports of it fail, however it is installed.

INPUTS = {"serving_default": "image_bytes", "pixels": "images", "encode": "images"}


def ways_to_load(folder):
    """(way, function from a signature and its input to outputs by name)."""
    signatures = tf.saved_model.load(folder).signatures
    yield "load", lambda name, value: signatures[name](**{INPUTS[name]: tf.constant(value)})
    version = Version(pathlib.Path(folder))
    yield "session", lambda name, value: version.run(name, {INPUTS[name]: value})
    import keras

    if keras.__version__.startswith("3."):
        yield "TFSMLayer", lambda name, value: keras.layers.TFSMLayer(folder, name)(tf.constant(value))


def main():
    inputs_file, outputs_file, *folders = sys.argv[1:]
    with np.load(inputs_file, allow_pickle=True) as inputs:
        values = {"serving_default": inputs["files"], "pixels": inputs["pixels"], "encode": inputs["floats"]}
    outputs = {"xla_is_off": disable_xla(), "tensorflow": tf.__version__}
    for number, folder in enumerate(folders):
        for way, call in ways_to_load(folder):
            for name, value in values.items():
                for key, output in call(name, value).items():
                    outputs[f"{number}/{way}/{name}/{key}"] = np.asarray(output)
    try:
        tf.function(tf.square, jit_compile=True)(tf.ones([2]))
        outputs["xla_runs"] = True
    except (tf.errors.OpError, ValueError):
        outputs["xla_runs"] = False
    np.savez(outputs_file, **outputs)


if __name__ == "__main__":
    main()
