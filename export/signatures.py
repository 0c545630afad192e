"""What a module offers, as JSON to review; runs nothing of it."""

import json
import pathlib


def read_signatures(path):
    """The signatures and variables of a SavedModel, from its files alone.

    Args:
        path: path of the SavedModel's folder.
    Returns: dict of "signatures" (name -> inputs and outputs) and "variables"
        (name -> text); a text tells the dtype, the shape, in which None is
        any size, and whether a variable is trainable.
    Raises: FileNotFoundError when there is no saved_model.pb.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    file = pathlib.Path(path) / "saved_model.pb"
    if not file.is_file():
        raise FileNotFoundError(
            f"expected the folder of a SavedModel, got {str(path)!r}"
        )
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    graph = saved.meta_graphs[0]
    return {
        "signatures": {
            name: {
                "inputs": _tensors(signature.inputs),
                "outputs": _tensors(signature.outputs),
            }
            for name, signature in sorted(graph.signature_def.items())
            if not name.startswith("__")
        },
        "variables": _variables(graph.object_graph_def),
    }


def write_signatures(path, file):
    """Writes `read_signatures`, a line for each tensor and variable."""
    text = json.dumps(read_signatures(path), indent=1, sort_keys=True)
    pathlib.Path(file).write_text(text + "\n", encoding="utf-8")


def _tensors(infos):
    return {
        key: f"{_dtype(info.dtype)} {_shape(info.tensor_shape)}"
        for key, info in sorted(infos.items())
    }


def _variables(object_graph):
    return {
        node.variable.name: (
            f"{_dtype(node.variable.dtype)} {_shape(node.variable.shape)}"
            f"{' trainable' if node.variable.trainable else ''}"
        )
        for node in object_graph.nodes
        if node.WhichOneof("kind") == "variable"
    }


def _shape(shape):
    sizes = [None if dim.size < 0 else dim.size for dim in shape.dim]
    return "[" + ", ".join(map(str, sizes)) + "]"


def _dtype(number):
    import tensorflow as tf

    return tf.dtypes.as_dtype(number).name
