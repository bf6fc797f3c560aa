"""What a CI did years ago: the registry's model into BentoML's store, a bento, an archive of it.

`python build.py ARCHIVE`, with the BentoML of requirements.txt. Prints the bento's tag.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bentoml
import mlflow


def main(archive: str) -> None:
    """Save the model as the service wants it, build, export."""
    model = mlflow.sklearn.load_model("models:/iris@prod")
    methods = {"predict_proba": {"batchable": True}}
    bentoml.sklearn.save_model("iris", model, signatures=methods)
    target = Path(archive).resolve()
    target.unlink(missing_ok=True)
    os.chdir(Path(__file__).parent)
    bento = bentoml.bentos.build_bentofile()
    bento.export(str(target))
    print(f"{bento.tag} was built by BentoML {bentoml.__version__}")


if __name__ == "__main__":
    main(sys.argv[1])
