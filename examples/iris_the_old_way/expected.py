"""Print what the registry's model makes of requests.yaml, without BentoML: answers by label.

A request that is not there has to be refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import yaml

KINDS = ["setosa", "versicolor", "virginica"]


def main() -> None:
    """Load the model by its alias, and ask it."""
    model = mlflow.sklearn.load_model("models:/iris@prod")
    answers = {}
    for request in yaml.safe_load(Path(__file__).with_name("requests.yaml").read_text()):
        if len(request["body"][0]) == 4:
            answers[request["label"]] = [
                {"kind": max(chances, key=chances.get), "chances": chances}
                for row in model.predict_proba(request["body"]).tolist()
                for chances in [dict(zip(KINDS, row, strict=True))]
            ]
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
