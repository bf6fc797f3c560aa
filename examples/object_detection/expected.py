"""Print what the registry's model finds in the pictures of requests.yaml: answers by label.

Runs the graph with ONNX Runtime, without BentoML. A request that is not there is not about JSON, or
has to be refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import yaml
from PIL import Image

HERE = Path(__file__).parent


def answer(session: Any, path: Path) -> dict[str, Any]:
    """Find what is in a picture."""
    picture = Image.open(path).convert("RGB")
    width, height = picture.size
    scale = 256 / max(width, height)
    small = picture.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    tensor = np.zeros((1, 3, 256, 256), np.float32)
    tensor[0, :, : small.height, : small.width] = np.asarray(small).transpose(2, 0, 1) / 255
    outputs = session.run(["boxes", "scores", "classes"], {"image": tensor})
    objects = [
        {
            "label": ["red ball", "green ball", "blue ball"][kind],
            "score": float(score),
            "box": [
                round(float(min(max(edge / scale, 0), end)), 1)
                for edge, end in zip(box, (width, height) * 2, strict=True)
            ],
        }
        for box, score, kind in zip(*outputs, strict=True)
    ]
    objects.sort(key=lambda one: -one["score"])
    return {"width": width, "height": height, "objects": objects}


def main() -> None:
    """Answer the requests for JSON."""
    model = mlflow.onnx.load_model("models:/ball_detector@prod")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    answers = {}
    for request in yaml.safe_load((HERE / "requests.yaml").read_text()):
        picture = request["multipart"]["image"]["file"]
        if request["path"] == "/inference" and not picture.endswith(".txt"):
            answers[request["label"]] = answer(session, HERE / picture)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
