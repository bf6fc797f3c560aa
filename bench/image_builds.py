"""Time image builds of one bento, each a process of its own, and print them side by side.

The bento is a scikit-learn model that is trained here, on the host base, so that nothing but the
package index is needed. Every case starts with the wheels in uv's cache. The ratios compare with
the first build of the same run; single figures depend on the machine and its mood.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "bench"
RUNS = 3


def main() -> None:
    """Run every case and write build/bench/images.json."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    bento = make_bento(WORK)
    build(bento)  # fills uv's cache
    cases = [
        measure("first build", bento, forget_cache),
        measure("nothing changed", bento, lambda _: None),
        measure("source changed", bento, change_source),
        measure("model changed", bento, change_model),
    ]
    (WORK / "images.json").write_text(json.dumps({"cases": cases}, indent=2) + "\n")
    show(cases)


def make_bento(directory: Path) -> Path:
    """Train a small model and build its bento."""
    import mlflow
    from sklearn.datasets import load_wine
    from sklearn.linear_model import LogisticRegression

    features, cultivar = load_wine(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=5000).fit(features, cultivar)
    mlflow.sklearn.save_model(
        model,
        directory / "model",
        signature=mlflow.models.infer_signature(features, model.predict(features)),
        input_example=features.head(3),
        pip_requirements=[f"mlflow=={mlflow.__version__}", "scikit-learn", "pandas", "skops"],
    )
    command("bento", "build", directory / "model", "--to", directory / "bento", "--name", "bench")
    return directory / "bento"


def forget_cache(bento: Path) -> None:
    """Start with no layer kept from an earlier build."""
    shutil.rmtree(WORK / "cache", ignore_errors=True)


def change_source(bento: Path) -> None:
    """Add one line to the service."""
    with (bento / "src" / "service.py").open("a") as file:
        file.write(f"# {time.time_ns()}\n")


def change_model(bento: Path) -> None:
    """Add one file to the model."""
    model = next((bento / "models").glob("*/*/MLmodel")).parent
    (model / "note.txt").write_text(str(time.time_ns()))


def measure(name: str, bento: Path, prepare: Callable[[Path], None]) -> dict[str, object]:
    """Build several times, preparing each, and give the median."""
    seconds, image = [], {}
    for _ in range(RUNS):
        prepare(bento)
        began = time.monotonic()
        image = build(bento)
        seconds.append(time.monotonic() - began)
    made = [layer for layer in image["layers"] if layer["origin"] == "built"]
    return {
        "name": name,
        "ours": {
            "seconds": round(statistics.median(seconds), 2),
            "seconds_all": [round(value, 2) for value in seconds],
            "bytes_made": sum(layer["size"] for layer in made),
            "image_bytes": image["size"],
        },
    }


def build(bento: Path) -> dict:
    """Build the image as a user would, whole process included."""
    destination = f"oci:{WORK / 'image'}"
    options = ("--base", "host", "--cache", WORK / "cache", "--json")
    return json.loads(command("image", "build", bento, "--to", destination, *options))


def command(*arguments: object) -> str:
    """Run one kfp-bento command and give what it prints."""
    argv = [sys.executable, "-m", "kfp_bento.runtime.cli", *map(str, arguments)]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def show(cases: list[dict]) -> None:
    """Print the cases as a table of ratios."""
    table = Table(title=f"Image builds, median of {RUNS}", box=None, title_justify="left")
    for heading in ("case", "seconds", "of first build", "bytes made"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    first = cases[0]["ours"]["seconds"]
    for case in cases:
        ours = case["ours"]
        ratio = f"{ours['seconds'] / first:.3f}"
        table.add_row(case["name"], f"{ours['seconds']:.2f}", ratio, f"{ours['bytes_made']:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
