"""Submitting a run, once for each name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kfp_bento.runtime.errors import RunUnavailable
from kfp_bento.runtime.runs.package import make_package
from kfp_bento.runtime.runs.server import PipelinesApi


@dataclass(frozen=True)
class Submission:
    """What a run is made of, besides its arguments and its name.

    Attributes:
        pipeline: What `local.load_pipeline` gave.
        experiment: Experiment of the run; empty takes the server's default.
        service_account: Account of the steps' pods; empty takes the namespace's default.
        caching: Whether steps may be cached that allow it.
    """

    pipeline: Any
    experiment: str = ""
    service_account: str = ""
    caching: bool = True


@dataclass(frozen=True)
class Submitted:
    """A run that is under way.

    Attributes:
        run_id: Its id.
        name: Its name.
        url: Its page.
        found: Whether it was there already, under this name.
    """

    run_id: str
    name: str
    url: str
    found: bool = False


def submit_run(
    api: PipelinesApi, submission: Submission, arguments: Mapping[str, Any], name: str
) -> Submitted:
    """Start a run under a name that no other has; where one has, that is the run.

    Where the answer to the request is lost it is looked for by its name, since the server may have
    started it all the same.

    Raises:
        InvalidInput: The pipeline cannot run on a cluster.
        RunError: The server refused, or does not answer.
    """
    with TemporaryDirectory(prefix="kfp-bento-submit-") as scratch:
        package = Path(scratch) / "pipeline.yaml"
        make_package(submission.pipeline, package, caching=submission.caching)
        if (there := api.find(name)) is not None:
            return Submitted(there.run_id, name, api.page(there.run_id), found=True)
        try:
            made = api.create(
                package,
                arguments,
                name,
                experiment=submission.experiment,
                service_account=submission.service_account,
            )
        except RunUnavailable:
            if (there := api.find(name)) is None:
                raise
            made = there.run_id
    return Submitted(made, name, api.page(made))
