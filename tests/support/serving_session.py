"""Runs an export as TensorFlow Serving does, as far as Python allows: in a TF1 session without XLA."""

import ctypes
import pathlib

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2


class ServingError(Exception):
    """The answer to a bad request: a canonical code and a message."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def invalid(message):
    return ServingError(tf.errors.INVALID_ARGUMENT, message)


def disable_xla():
    """Disables XLA as the `main` of TensorFlow Serving does; returns whether this TensorFlow has the symbol."""
    folder = pathlib.Path(tf.__file__).parent
    for library in (*folder.glob("libtensorflow_cc.so.2"), *folder.glob("python/_pywrap_tensorflow_internal.so")):
        disable = getattr(ctypes.CDLL(str(library)), "_ZN10tensorflow21DisableXlaCompilationEv", None)
        if disable is not None:
            disable()
            return True
    return False


class Version:
    """One version: a session, and a function per signature and choice of outputs."""

    def __init__(self, folder):
        self.number = int(folder.name)
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.loader.load(self.session, ["serve"], str(folder))
        self.signatures = dict(meta_graph.signature_def)
        self._callables = {}

    def run(self, signature_name, inputs, outputs=()):
        """Runs a signature; returns the requested outputs, or all of them, as arrays by name."""
        signature_name = signature_name or "serving_default"
        if signature_name not in self.signatures:
            raise ServingError(tf.errors.FAILED_PRECONDITION, f'Serving signature key "{signature_name}" not found.')
        signature = self.signatures[signature_name]
        if set(inputs) != set(signature.inputs):
            raise invalid(f"input size does not match signature: {sorted(inputs)}, {sorted(signature.inputs)}")
        for name, value in inputs.items():
            expected = tf.dtypes.as_dtype(signature.inputs[name].dtype)
            if expected != tf.string and expected.as_numpy_dtype != value.dtype:
                raise invalid(f"Expects {name} to be {expected.name} but {value.dtype} is provided")
        unknown = set(outputs) - set(signature.outputs)
        if unknown:
            raise invalid(f"output tensor alias not found in signature: {', '.join(unknown)}")
        outputs = tuple(outputs or signature.outputs)
        # Not `Session.run`, which checks the shapes of its feeds: the session of TensorFlow Serving does not.
        call = self._callables.get((signature_name, outputs))
        if call is None:
            fetch = [signature.outputs[name].name for name in outputs]
            feed = [info.name for info in signature.inputs.values()]
            call = self.session._make_callable_from_options(config_pb2.CallableOptions(feed=feed, fetch=fetch))
            self._callables[signature_name, outputs] = call
        try:
            return dict(zip(outputs, call(*(inputs[name] for name in signature.inputs)), strict=True))
        except tf.errors.OpError as error:
            raise ServingError(error.error_code, error.message) from None
