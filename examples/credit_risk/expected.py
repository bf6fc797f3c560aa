"""Print what the registry's model makes of requests.yaml, without BentoML: answers by label.

A request that is not there has to be refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import yaml

REFUSED = ("too young", "a field that there is not")


def main() -> None:
    """Load the model by its alias, and decide."""
    model = mlflow.sklearn.load_model("models:/credit_risk@prod")
    answers = {}
    for request in yaml.safe_load(Path(__file__).with_name("requests.yaml").read_text()):
        if request["label"] not in REFUSED:
            risk = float(model.predict_proba([{"debt": 0, **request["body"]}])[0, 1])
            status = "APPROVED" if risk < 0.2 else "MAYBE" if risk < 0.5 else "DECLINED"
            answers[request["label"]] = {"status": status, "risk": risk}
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
