"""Small pipelines that the local runner's tests run."""

from kfp import dsl

from kfp_bento.components import (
    build_bento,
    build_image,
    compare_predictions,
    deploy_bento,
    promote_model,
    pull_model,
    scan_model,
    smoke_test,
)


@dsl.component(base_image="python", install_kfp_package=False)
def double(number: int) -> int:
    return 2 * number


@dsl.component(base_image="python", install_kfp_package=False)
def write(number: int, record: dsl.Output[dsl.Artifact]):
    import json
    from pathlib import Path

    Path(record.path).write_text(json.dumps({"number": number}))


@dsl.component(base_image="python", install_kfp_package=False)
def refuse(number: int):
    from kfp_bento.runtime.errors import InvalidInput

    try:
        raise InvalidInput("The first error.", hint="None.")
    except InvalidInput as error:
        told = f"{number} is too small.\nIt must be 10."
        raise InvalidInput(told, hint="Give a larger number.") from error


@dsl.component(base_image="python", install_kfp_package=False)
def crash():
    raise RuntimeError("something unforeseen")


@dsl.component(base_image="python", install_kfp_package=False)
def sleep(seconds: int, marker: str):
    import os
    import time
    from pathlib import Path

    Path(marker).write_text(str(os.getpid()))
    time.sleep(seconds)


@dsl.component(base_image="python", install_kfp_package=False)
def tell_temporary_directory() -> str:
    import tempfile

    return tempfile.gettempdir()


@dsl.pipeline
def two_steps(
    number: int, factor: float = 1.5, names: list = [], settings: dict = {}, on: bool = True
):
    write(number=double(number=number).output)


@dsl.pipeline
def refusing(number: int = 3):
    refuse(number=double(number=number).output)


@dsl.pipeline
def crashing():
    crash()


@dsl.pipeline
def sleeping(marker: str, seconds: int = 60):
    sleep(seconds=seconds, marker=marker)


@dsl.pipeline
def temporary():
    tell_temporary_directory()


@dsl.pipeline
def decide_together(
    model_uris: list,
    service_source: str,
    requests: list,
    image_destination: str,
    promote_alias: str,
    tracking_uri: str,
):
    """The road of serve_model, for a service of one's own around several models."""
    pulled = pull_model(model_uris=model_uris, tracking_uri=tracking_uri)
    models = pulled.outputs["models"]
    scanned = scan_model(models=models)
    bento = build_bento(
        models=models,
        service_source=service_source,
        requests=requests,
        scan_verdict=scanned.outputs["verdict"],
    )
    image = build_image(bento=bento.outputs["bento"], destination=image_destination, base="host")
    release = deploy_bento(
        target="workload",
        image=image.outputs["image"],
        image_location=image.outputs["location"],
        bento=bento.outputs["bento"],
    )
    golden = bento.outputs["golden"]
    smoke = smoke_test(url=release.outputs["url"], golden=golden)
    comparison = compare_predictions(url=release.outputs["url"], golden=golden).after(smoke)
    promote_model(
        models=models,
        smoke_report=smoke.outputs["report"],
        comparison_report=comparison.outputs["report"],
        alias=promote_alias,
        image=image.outputs["image"],
        tracking_uri=tracking_uri,
    )
