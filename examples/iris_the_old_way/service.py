"""Say which iris a flower is, as it was written for BentoML 1.0 and 1.1: with a runner."""

import bentoml
import numpy as np
from bentoml.io import JSON, NumpyNdarray

KINDS = ["setosa", "versicolor", "virginica"]

runner = bentoml.sklearn.get("iris:latest").to_runner()
svc = bentoml.Service("iris_classifier", runners=[runner])


@svc.api(
    input=NumpyNdarray(dtype="float64", shape=(-1, 4), enforce_dtype=False, enforce_shape=True),
    output=JSON(),
)
async def classify(flowers: np.ndarray) -> list:
    """Name the kind of each flower, given sepal and petal, length and width, in cm."""
    chances = await runner.predict_proba.async_run(flowers)
    return [
        {"kind": KINDS[int(row.argmax())], "chances": dict(zip(KINDS, row.tolist(), strict=True))}
        for row in chances
    ]
