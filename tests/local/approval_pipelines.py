"""The end of serve_model with stand-ins for the steps before it, for the local runner."""

from types import SimpleNamespace

from kfp import dsl

from kfp_bento.components import pull_model
from kfp_bento.pipelines.steps import Pulled, promoted_when_approved


@dsl.component(base_image="python", install_kfp_package=False)
def check_nothing(models: dsl.Input[dsl.Artifact], reports: dsl.Output[dsl.Artifact]):
    """Find everything well about a release that was only rendered."""
    from pathlib import Path

    from kfp_bento.runtime import checks, deployments
    from kfp_bento.runtime import models as pulled

    image = "registry.example.com/wine@sha256:" + "a" * 64
    release = deployments.ReleaseFacts(
        "workload", "rendered", "wine", "default", "0" * 16, image=image
    )
    digests = tuple(model.digest for model in pulled.load_given_facts(models))
    report = checks.CheckReport(
        *("smoke_test", True, "fine", {}, (), digests, ""), image=image, release=release.title
    )
    found = checks.ReleaseReports(release, (report,))
    reports.metadata["record"] = found.save(Path(reports.path))


@dsl.component(base_image="python", install_kfp_package=False)
def note_the_end(marker: str):
    from pathlib import Path

    Path(marker).write_text("ended")


@dsl.pipeline
def promoting(model: str, tracking_uri: str, alias: str, marker: str, approval_seconds: int = 0):
    with dsl.ExitHandler(note_the_end(marker=marker)):
        pulled = pull_model(model_uris=[model], tracking_uri=tracking_uri)
        checked = check_nothing(models=pulled.outputs["facts"])
        given = SimpleNamespace(
            approval_seconds=approval_seconds,
            promote_alias=alias,
            required_checks=["smoke"],
            tracking_uri=tracking_uri,
            deploy_wait_seconds=60,
            mlflow_secret="mlflow",
            record_secret="records",
        )
        models = Pulled(pulled.outputs["models"], pulled.outputs["facts"], {}, "")
        promoted_when_approved(given, models, checked.outputs["reports"])
