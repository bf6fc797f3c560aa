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
    bento: dsl.Output[dsl.Model],
    golden: dsl.Output[dsl.Artifact],
    facts: dsl.Output[dsl.Artifact],
    models: dsl.Input[dsl.Model] = None,
    service_artifact: dsl.Input[dsl.Artifact] = None,
    bento_name: str = "",
    service: str = "",
    requirements: list = [],  # noqa: B006 - KFP wants the default in the signature
    allow_sources: list = [],  # noqa: B006
    python_version: str = "",
    verify: bool = True,
    requests: list = [],  # noqa: B006
    relative_tolerance: float = 1e-6,
    absolute_tolerance: float = 1e-9,
    scan_verdict: dict = {},  # noqa: B006
    options: dict = {},  # noqa: B006
    looked_at: str = "",
) -> str:
    """Build a bento with locked dependencies, and prove that it answers as its model does.

    Without a service of your own a typed service is generated from the model's signature. The bento
    is started in its locked environment and asked the model's own input example, or your requests;
    mlflow.pyfunc is asked the same there. The step fails where the model does not load or the
    answers differ.

    Args:
        models: The models from pull_model; left out for a service that needs none.
        service_artifact: A service of your own as an artifact: a file, an archive or a directory.
        bento_name: Name of the bento; empty takes the first model's, by the alphabet, or what a
            service of your own says.
        service: A service of your own: its source as text, an address (https://, s3://, minio://,
            file://) of a .py file or an archive, a path in the step's pod, or
            git+https://host/repository@COMMIT; #subdirectory=... says where in it, #sha256=... what
            a file must be. Empty generates one.
        requirements: Requirements to lock besides the model's own, one per item.
        allow_sources: Beginnings of addresses (https://host/path/) of the indexes and wheels that
            the model's own requirements may name, and of repositories (git+https://host/path/),
            whose code is run to build wheels; empty allows names and versions only.
        python_version: Python of the bento, such as 3.11; empty takes the model's own.
        verify: Start the bento and compare its answers; false builds it unproven, which the checks
            say, and compare_predictions does not pass then.
        requests: What to ask instead of the input example: objects with path, and body (JSON),
            text, multipart or base64 with media_type; method, headers, label, expect (model or
            service), answer and compare. A text instead is the address of a file of them.
        relative_tolerance: Allowed difference of floats relative to the expected value.
        absolute_tolerance: Allowed difference of floats in the value's own unit.
        scan_verdict: The verdict of scan_model on these models; one that did not pass is refused.
            Empty where nobody scanned.
        options: The rarer wishes, by name: system_packages (Debian's), envs (public in the image),
            labels, traces (whether it holds what sends OpenTelemetry's traces); and of a generated
            service log_to_bucket (whether it holds what writes its log of requests to a bucket),
            show_example (whether the API page shows a row of the input example), protocols (of
            mlflow, v2, v1), max_batch_size and max_latency_ms (rows of several callers in one call
            of the model).
        looked_at: What resolve_models says of a service and requests at addresses. Nothing is made
            of it: with another value Kubeflow's cache takes this for another step.

    Returns:
        bento: The bento directory, models included; its metadata says tag and digest.
        golden: Requests and the answers that are right for them, for smoke_test and
            compare_predictions.
        facts: The bento without its models' files, for steps that need no weights.
        Output: The bento's tag, name:version.
    """
    from pathlib import Path

    from kfp_bento.runtime import bentos, proof, scan

    asked, loaded = proof.given_requests(requests), scan.load_scanned(models, scan_verdict)
    built = bentos.build_bento(
        loaded,
        Path(bento.path),
        name=bento_name,
        service=bentos.given_service(service, service_artifact),
        requirements=requirements,
        allow_sources=allow_sources,
        python_version=python_version,
        options=options,
    )
    bentos.hand_on(built, facts, bento)
    answers = proof.golden_answers(
        built,
        loaded,
        verify=verify,
        requests=asked,
        relative_tolerance=relative_tolerance,
        absolute_tolerance=absolute_tolerance,
        allow_sources=allow_sources,
        batched=bool(options.get("max_batch_size")),
    )
    golden.metadata.update(
        record=answers.save(Path(golden.path)), verified=answers.verified, reason=answers.told
    )
    return built.tag
