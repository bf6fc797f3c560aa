"""The process that kfp.local runs in: KFP keeps its state, and our terminal, to itself.

Started by runs.run_pipeline with one JSON file that says what to run. KFP swaps the logging
handlers and replaces print while it runs, and its steps are children of this process; in a
process group of its own all of it can be stopped as one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kfp import local

from kfp_bento.runtime.files import JSON_LIMIT, parse_json, read_small_file
from kfp_bento.runtime.local.pipelines import (
    load_pipeline,
    values_here,
    without_nones,
    without_retries,
)


def main(request: dict[str, Any]) -> None:
    """Run one pipeline to its end; raises what KFP raises when a step fails."""
    pipeline = without_retries(load_pipeline(request["pipeline"]))
    local.init(
        # The steps' image holds kfp and kfp_bento; so does this interpreter.
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=request["root"],
        # kfp.local deletes its workspace after every run: never a directory of the user's.
        workspace_root=str(Path(request["root"]) / ".workspace"),
    )
    sys.stdin.readline()  # ready so far; the rest begins when we are told to
    arguments = values_here(pipeline) | request["arguments"]
    without_nones(pipeline, arguments)(**arguments)


if __name__ == "__main__":
    main(parse_json(read_small_file(Path(sys.argv[1]), JSON_LIMIT)))
