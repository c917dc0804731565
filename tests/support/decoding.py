"""A decoder that is traced in no time, for tests of what surrounds the decoding."""

import pytest
import tensorflow as tf

from tf_simclr.data.formats import decode


def decode_quickly(patch: pytest.MonkeyPatch) -> None:
    """Has graphs decode PNG and JPEG files by one operation.

    The graph that knows every kind of file takes TensorFlow a second in each new pipeline. Why a file is broken is
    found outside of graphs, and still by the whole decoder.
    """
    whole = decode.decode_image

    def decode_image(encoded, max_pixels=decode.headers.MAX_PIXELS):
        if tf.executing_eagerly():
            return whole(encoded, max_pixels)
        return tf.ensure_shape(tf.io.decode_image(encoded, channels=3, expand_animations=False), [None, None, 3])

    patch.setattr(decode, "decode_image", decode_image)
