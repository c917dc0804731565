"""Strategies over the four logical CPUs that `conftest.py` makes."""

import tensorflow as tf


def mirrored(num_replicas: int, *, collective: bool = False) -> tf.distribute.MirroredStrategy:
    """Strategy over two or four logical CPUs.

    TensorFlow's collective operations allow one group size and one network per process: that of test_simclr.py, with
    `collective`. The others reduce on one device instead, which uses the other implementation of every cross-replica
    operation.
    """
    devices = [f"CPU:{index}" for index in range(num_replicas)]
    operations = None if collective else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=operations)
