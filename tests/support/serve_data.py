"""A tf.data service of one worker in a process of its own: prints its address, and runs until its input ends."""

import sys

import tensorflow as tf

service = tf.data.experimental.service
dispatcher = service.DispatchServer()
address = dispatcher.target.removeprefix("grpc://")
worker = service.WorkerServer(service.WorkerConfig(address, heartbeat_interval_ms=100))
print(address, flush=True)
sys.stdin.read()
