"""Runs a tf.data service with one worker: prints its address, and stops when its input ends."""

import sys

import tensorflow as tf

service = tf.data.experimental.service
dispatcher = service.DispatchServer()
address = dispatcher.target.removeprefix("grpc://")
worker = service.WorkerServer(service.WorkerConfig(address, heartbeat_interval_ms=100))
print(address, flush=True)
sys.stdin.read()
