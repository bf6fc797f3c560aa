"""Print what the registry's model makes of requests.yaml, without BentoML: answers by label.

A request that is not there has to be refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pandas as pd
import yaml


def main() -> None:
    """Load the model by its alias, and ask it."""
    model = mlflow.pyfunc.load_model("models:/recommender@prod")
    answers = {}
    for request in yaml.safe_load(Path(__file__).with_name("requests.yaml").read_text()):
        body = {"top_k": 5, **request["body"]}
        if body["top_k"] <= 40:
            users = pd.DataFrame({"user_id": [body["user_id"]]})
            (ranked,) = model.predict(users, params={"top_k": body["top_k"]})
            answers[request["label"]] = {"user_id": body["user_id"], "ranked_items": ranked}
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
