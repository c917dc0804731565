"""Reads the graph of objects that a TensorFlow 2 checkpoint has beside its variables."""

from typing import Any

from tensorflow.core.protobuf import trackable_object_graph_pb2

_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


def names_by_key(reader: Any) -> dict[str, str]:
    """Full names of the variables by key, without those of the optimizer; empty for a checkpoint of TensorFlow 1."""
    if not reader.has_tensor(_KEY):
        return {}
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(_KEY))
    slots = {slot.slot_variable_node_id for node in graph.nodes for slot in node.slot_variables}
    return {
        attribute.checkpoint_key: attribute.full_name
        for index, node in enumerate(graph.nodes)
        for attribute in node.attributes
        if index not in slots and "optimizer" not in attribute.checkpoint_key.split("/")
    }
