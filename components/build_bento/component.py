"""Build a bento around models."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def build_bento(
    models: dsl.Input[dsl.Model],
    bento: dsl.Output[dsl.Model],
    golden: dsl.Output[dsl.Artifact],
    bento_name: str = "",
    service_source: str = "",
    extra_requirements: list = [],  # noqa: B006 - KFP wants the default in the signature
    show_example: bool = True,
    allow_sources: list = [],  # noqa: B006
    python_version: str = "",
    verify: bool = True,
    requests: list = [],  # noqa: B006
    relative_tolerance: float = 1e-6,
    absolute_tolerance: float = 1e-9,
    scan_verdict: dict = {},  # noqa: B006
    protocols: list = ["mlflow", "v2", "v1"],  # noqa: B006
    max_batch_size: int = 0,
    max_latency_ms: int = 0,
) -> str:
    """Build a bento with locked dependencies, and prove that it answers as its model does.

    Without a service source a typed service is generated from the model's signature. The bento is
    started in its locked environment and asked the model's own input example; mlflow.pyfunc is
    asked the same there. The step fails where the model does not load or the answers differ.

    Args:
        models: The models from pull_model.
        bento: The bento directory, models included; its metadata says tag and digest.
        golden: Requests and the answers that are right for them, for smoke_test and
            compare_predictions.
        bento_name: Name of the bento; empty takes the first model's, by the alphabet.
        service_source: Directory or file with a BentoML service of your own; empty generates one.
        extra_requirements: Requirements to lock besides the model's own, one per item.
        show_example: Show the first row of the model's input example, which may be somebody's data,
            on the API page of a generated service.
        allow_sources: Beginnings of addresses (https://host/path/) of the indexes and wheels that
            the model's own requirements may name, and of repositories (git+https://host/path/),
            whose code is run to build wheels; empty allows names and versions only.
        python_version: Python of the bento, such as 3.11; empty takes the model's own.
        verify: Start the bento and compare its answers; false builds it unproven, which the checks
            say, and compare_predictions does not pass then.
        requests: What to ask instead of the input example: objects with path, and body (JSON), text
            or base64 with media_type; method, headers, label and expect (model or service).
        relative_tolerance: Allowed difference of floats relative to the expected value.
        absolute_tolerance: Allowed difference of floats in the value's own unit.
        scan_verdict: The verdict of scan_model on these models; one that did not pass is refused.
            Empty where nobody scanned.
        protocols: What a generated service speaks besides JSON on /predict: mlflow (/invocations),
            v2 (the Open Inference Protocol) and v1 (KServe's).
        max_batch_size: Most rows of concurrent requests that are put together into one call of the
            model; 0 asks it for each request by itself. Refused where the proof shows that
            rows depend on each other.
        max_latency_ms: Milliseconds that a request waits for others at most; 0 lets none wait
            while the model is free.

    Returns:
        The bento's tag, name:version.
    """
    from pathlib import Path

    from kfp_bento.runtime import bentos, proof, scan

    loaded = scan.load_scanned(models, scan_verdict)
    built = bentos.build_bento(
        loaded,
        Path(bento.path),
        name=bento_name,
        service=Path(service_source) if service_source else None,
        requirements=extra_requirements,
        show_example=show_example,
        allow_sources=allow_sources,
        python_version=python_version,
        speaks=bentos.Speech(tuple(protocols), max_batch_size, max_latency_ms),
    )
    bento.metadata.update(
        tag=built.tag,
        digest=built.digest,
        python_version=built.python_version,
        record=bentos.bento_record(built),
    )
    answers = proof.golden_answers(
        built,
        loaded,
        verify=verify,
        requests=requests,
        relative_tolerance=relative_tolerance,
        absolute_tolerance=absolute_tolerance,
        allow_sources=allow_sources,
        batched=max_batch_size > 0,
    )
    golden.metadata.update(
        record=answers.save(Path(golden.path)), verified=answers.verified, reason=answers.reason
    )
    return built.tag
