"""Make a detector of coloured balls as an ONNX graph, and register it as `ball_detector@prod`.

Nothing is learned: each filter is a disc of one size with a ring around it, which answers most
where a disc of that size lies. The graph ends as those of trained detectors do: in
NonMaxSuppression, with boxes, scores and classes.
"""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import onnx
from mlflow.models import infer_signature
from onnx import TensorProto, helper, numpy_helper

NAME = "ball_detector"
SIDE, STEP = 256, 4
RADII = (8.0, 10.0, 12.5, 16.0, 20.0, 25.0)
REACH = 36
"""Pixels from the middle of a filter to its edge: the largest ring."""

COLOURS = np.float32([[1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1]])
"""How red, green and blue a pixel is; grey is none of them."""


def disc(radius: float) -> np.ndarray:
    """Give a filter: one in all inside of the radius, minus one in all in a ring around it."""
    down, right = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1]
    distance = np.hypot(down, right)
    inside = distance <= radius
    ring = (distance > radius) & (distance <= 1.4 * radius)
    return (inside / inside.sum() - ring / ring.sum()).astype(np.float32)


def boxes() -> np.ndarray:
    """Give the box of each size at each place: top, left, bottom, right."""
    middle = np.arange(0, SIDE, STEP, dtype=np.float32)
    found = []
    for radius in RADII:
        down, right = np.meshgrid(middle, middle, indexing="ij")
        found.append(np.stack([down - radius, right - radius, down + radius, right + radius], -1))
    return np.stack(found).reshape(1, -1, 4).astype(np.float32)


def detector() -> onnx.ModelProto:
    """Build the graph."""
    places = boxes()
    count = places.shape[1]
    constants = {
        "colours": COLOURS.reshape(3, 3, 1, 1),
        "discs": np.tile(np.stack([disc(radius) for radius in RADII])[:, None], (3, 1, 1, 1)),
        "all_boxes": places,
        "by_class": np.int64([1, 3, count]),
        "most": np.int64([20]),
        "overlap": np.float32([0.3]),
        "least": np.float32([0.25]),
        "one": np.int64(1),
        "two": np.int64(2),
        "count": np.int64([count]),
        "as_list": np.int64([-1]),
        "as_boxes": np.int64([count, 4]),
        "left_first": np.int64([1, 0, 3, 2]),
    }
    nodes = [
        helper.make_node("Conv", ["image", "colours"], ["colour"]),
        helper.make_node("Relu", ["colour"], ["strength"]),
        helper.make_node(
            "Conv", ["strength", "discs"], ["heat"], group=3, strides=[STEP] * 2, pads=[REACH] * 4
        ),
        helper.make_node("Reshape", ["heat", "by_class"], ["scored"]),
        helper.make_node(
            "NonMaxSuppression", ["all_boxes", "scored", "most", "overlap", "least"], ["chosen"]
        ),
        helper.make_node("Gather", ["chosen", "one"], ["classes"], axis=1),
        helper.make_node("Gather", ["chosen", "two"], ["place"], axis=1),
        helper.make_node("Mul", ["classes", "count"], ["before"]),
        helper.make_node("Add", ["before", "place"], ["flat_place"]),
        helper.make_node("Reshape", ["scored", "as_list"], ["flat_scores"]),
        helper.make_node("Gather", ["flat_scores", "flat_place"], ["scores"]),
        helper.make_node("Reshape", ["all_boxes", "as_boxes"], ["flat_boxes"]),
        helper.make_node("Gather", ["flat_boxes", "place"], ["found"]),
        helper.make_node("Gather", ["found", "left_first"], ["boxes"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["objects", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["objects"]),
            helper.make_tensor_value_info("classes", TensorProto.INT64, ["objects"]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Build, log and register."""
    picture = {"image": np.zeros((1, 3, SIDE, SIDE), np.float32)}
    found = {
        "boxes": np.zeros((2, 4), np.float32),
        "scores": np.zeros(2, np.float32),
        "classes": np.zeros(2, np.int64),
    }
    mlflow.set_experiment(NAME)
    with mlflow.start_run():
        logged = mlflow.onnx.log_model(
            detector(),
            name="model",
            registered_model_name=NAME,
            signature=infer_signature(picture, found),
            metadata={"labels": ["red ball", "green ball", "blue ball"]},
            pip_requirements=str(Path(__file__).with_name("requirements.txt")),
        )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(NAME, "prod", version)
    print(f"{NAME}@prod is version {version}")


if __name__ == "__main__":
    main()
