"""The four ways to serve an image: what they render, and what says whether it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_models import MODELS, model_problems
from crd_schemas import GENERATIONS, needs_crds, other_schemas, schema_problems, served_schemas
from sample_bentos import IMAGE, make_bento
from sample_targets import ARCHIVE, NEWER_REQUEST, OLD, OTHER, RENDERED, ROUTE, STORED, TAG

from kfp_bento.runtime.deployments import TARGETS, Release, target_of
from kfp_bento.runtime.deployments.kube.manifests import write_manifests
from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts
from kfp_bento.runtime.deployments.targets.kserve.rules import canary_name
from kfp_bento.runtime.deployments.targets.workload.render import WorkloadOptions
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import manifest_problems
from kfp_bento.runtime.errors import InvalidInput

everything_rendered = pytest.mark.parametrize(
    ("target", "image", "bento", "options"), RENDERED.values(), ids=list(RENDERED)
)


def released(target: str, image: str = IMAGE, bento: Any = None, **options: Any) -> Release:
    return TARGETS[target].render(image, bento or make_bento(), options)


def render(target: str, image: str = IMAGE, bento: Any = None, **options: Any) -> Any:
    return released(target, image, bento, **options).manifests


def of_kind(manifests: Any, kind: str) -> list[Any]:
    return [one for one in manifests if one["kind"] == kind]


@needs_crds
@everything_rendered
def test_the_real_crds_accept_what_is_rendered(
    target: str, image: str, bento: Any, options: Any
) -> None:
    for manifest in TARGETS[target].render(image, bento, options).manifests:
        kind = (manifest["apiVersion"], manifest["kind"])
        if kind in MODELS or manifest["kind"] == "ServiceMonitor":
            continue
        schemas = (
            [served_schemas(generation)[kind] for generation in GENERATIONS]
            if "yatai" in kind[0]
            else [other_schemas()[kind]]
        )
        for schema in schemas:
            assert list(schema_problems(manifest, schema)) == []


@needs_crds
@pytest.mark.parametrize("generation", ["kubeflow-1.9", "newest"])
def test_newer_fields_are_rendered_for_generations_that_have_them(generation: str) -> None:
    manifests = render("bento-request", TAG, crd_generation=generation, **NEWER_REQUEST)
    for manifest in manifests:
        schema = served_schemas(generation)[(manifest["apiVersion"], manifest["kind"])]
        assert list(schema_problems(manifest, schema)) == []
    assert manifests[0]["spec"]["models"][0]["size"] == "1Gi"
    assert manifests[0]["spec"]["imageBuilderExtraPodSpec"] == {"priorityClassName": "high"}
    assert manifest_problems(manifests) == []


@everything_rendered
def test_the_clients_models_accept_what_is_rendered(
    target: str, image: str, bento: Any, options: Any
) -> None:
    for manifest in TARGETS[target].render(image, bento, options).manifests:
        if (manifest["apiVersion"], manifest["kind"]) in MODELS:
            assert model_problems(manifest) == []


def test_the_clients_models_refuse_unknown_keys_and_wrong_types() -> None:
    (deployment,) = of_kind(render("workload"), "Deployment")
    deployment["spec"]["replicas"] = 1.0
    deployment["spec"]["template"]["spec"]["container"] = []
    assert model_problems(deployment) == [
        ".spec.template.spec.container is unknown",
        ".spec.replicas: 1.0 is no int",
    ]


@everything_rendered
def test_our_own_check_accepts_what_is_rendered(
    target: str, image: str, bento: Any, options: Any
) -> None:
    assert manifest_problems(TARGETS[target].render(image, bento, options).manifests) == []


@everything_rendered
def test_the_same_options_give_the_same_files(
    target: str, image: str, bento: Any, options: Any, tmp_path: Path
) -> None:
    chosen = TARGETS[target]
    first = write_manifests(chosen.render(image, bento, options).manifests, tmp_path / "one")
    shuffled = json.loads(json.dumps(dict(reversed(options.items()))))
    second = write_manifests(chosen.render(image, bento, shuffled).manifests, tmp_path / "two")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@everything_rendered
def test_every_target_tells_its_url_its_primary_and_what_must_run(
    target: str, image: str, bento: Any, options: Any
) -> None:
    chosen = TARGETS[target]
    release = chosen.render(image, bento, options)
    assert release.url().startswith(f"http://{release.name}")
    watched = release.watched
    assert (watched.primary, watched.revision) == (release.primary, release.revision)
    assert watched.deployments and watched.pods
    for workload in watched.deployments:
        assert dict(workload.template)["kfp-bento/pod-revision"]


@pytest.mark.parametrize("change", [{"envs": {"A": "2"}}, {"service_account": "other"}])
@pytest.mark.parametrize("target", ["bento-deployment", "workload", "inference-service"])
def test_another_pod_is_another_pod_revision(target: str, change: dict[str, Any]) -> None:
    def revision(**options: Any) -> Any:
        return released(target, **options).watched.deployments[0].template

    assert revision() != revision(**change)
    assert revision() == revision(autoscaling={"minReplicas": 1, "maxReplicas": 4})


def test_options_are_typed_and_kfps_floats_put_right() -> None:
    options = WorkloadOptions.of("workload", {"canary_percent": 3.0, "name": None, "labels": {}})
    assert options.canary_percent == 3
    assert type(options.canary_percent) is int
    assert options.name == ""


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_every_option_is_documented(target: Any) -> None:
    known = "".join(cls.__doc__ or "" for cls in target.options_type.__mro__)
    for name in target.options_type.model_fields:
        assert f"{name}: " in known


def test_a_target_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInput, match="target: 'knative' is no deployment target"):
        target_of("knative")


def test_runners_are_watched_in_the_order_of_the_bento() -> None:
    watched = released("bento-deployment", bento=OLD).watched
    names = [one.name for one in watched.deployments]
    assert names == ["fraud", "fraud-runner-0", "fraud-runner-1"]
    assert {one.image for one in watched.deployments} == {IMAGE}
    assert watched.deployments[1].labels == (("yatai.ai/bento-version", "v1"),)


def test_a_request_renders_no_bento_that_the_builder_would_overwrite() -> None:
    manifests = render("bento-request", TAG, archive_url=ARCHIVE, build_timeout="90")
    request, deployment = manifests
    assert [one["kind"] for one in manifests] == ["BentoRequest", "BentoDeployment"]
    assert deployment["spec"]["bento"] == request["metadata"]["name"]
    assert request["spec"]["imageBuildTimeout"] == 90 * 10**9
    assert request["spec"]["ociRegistryInsecure"] is False


def test_a_new_signature_of_the_same_archive_is_no_new_revision() -> None:
    def revision(url: str) -> Any:
        manifests = render("bento-request", TAG, archive_url=url)
        return TARGETS["bento-request"].watched(manifests).deployments[0].template

    assert revision(ARCHIVE) == revision(ARCHIVE.replace("Signature=0", "Signature=1"))


def test_switches_of_the_builder_go_to_the_request_and_those_of_the_operator_to_the_spec() -> None:
    annotations = {
        "yatai.ai/force-build-image": "true",
        "yatai.ai/deployment-strategy": "Recreate",
    }
    given = {"archive_url": ARCHIVE, "annotations": annotations, "crd_generation": "kubeflow-1.9"}
    request, deployment = render("bento-request", TAG, **given)
    assert request["metadata"]["annotations"]["yatai.ai/force-build-image"] == "true"
    assert deployment["spec"]["annotations"] == {"yatai.ai/deployment-strategy": "Recreate"}
    assert "yatai.ai/force-build-image" not in deployment["metadata"]["annotations"]


def test_an_autoscaler_owns_the_number_of_replicas() -> None:
    manifests = render("workload", autoscaling={"minReplicas": 2, "maxReplicas": 3})
    (deployment,), (autoscaler,) = (
        of_kind(manifests, "Deployment"),
        of_kind(manifests, "HorizontalPodAutoscaler"),
    )
    assert "replicas" not in deployment["spec"]
    assert autoscaler["spec"]["minReplicas"] == 2
    assert of_kind(manifests, "PodDisruptionBudget")[0]["spec"]["maxUnavailable"] == 1


def test_a_fixed_number_of_replicas_needs_no_autoscaler() -> None:
    manifests = render("workload", autoscaling={"minReplicas": 1, "maxReplicas": 1})
    assert [one["kind"] for one in manifests] == ["Deployment", "Service"]
    assert manifests[0]["spec"]["replicas"] == 1


def test_pods_are_restricted_and_have_one_place_to_write() -> None:
    (deployment,) = of_kind(render("workload"), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 1034,
        "runAsGroup": 1034,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["automountServiceAccountToken"] is False
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    paths = [container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("liveness", "readiness")]
    assert paths == ["/livez", "/readyz"]


def test_selectors_hold_nothing_that_changes_between_releases() -> None:
    def selector(version: str) -> Any:
        (deployment,) = of_kind(render("workload", bento=make_bento(version=version)), "Deployment")
        return deployment["spec"]["selector"]

    assert selector("v1") == selector("v2")


def test_a_canary_leaves_the_pods_of_the_stable_image_alone() -> None:
    before = of_kind(
        render("workload", OTHER, make_bento(version="old"), route=ROUTE), "Deployment"
    )
    stable, canary = of_kind(
        render("workload", route=ROUTE, canary_percent=20, stable_image=OTHER), "Deployment"
    )
    assert stable["spec"] == before[0]["spec"]
    assert canary["metadata"]["name"] == "wine-canary"
    assert canary["spec"]["selector"] != stable["spec"]["selector"]


def test_a_canary_splits_the_route_between_two_services() -> None:
    manifests = render("workload", route=ROUTE, canary_percent=20.0, stable_image=OTHER)
    (route,) = of_kind(manifests, "HTTPRoute")
    assert route["spec"]["rules"][0]["backendRefs"] == [
        {"name": "wine", "port": 3000, "weight": 80},
        {"name": "wine-canary", "port": 3000, "weight": 20},
    ]
    services = [one["metadata"]["name"] for one in of_kind(manifests, "Service")]
    assert services == ["wine", "wine-canary"]
    watched = TARGETS["workload"].watched(manifests)
    assert [one.image for one in watched.deployments] == [OTHER, IMAGE]
    assert [ref.name for ref in watched.routes] == ["wine"]


def inference_service(image: str = IMAGE, **options: Any) -> Any:
    return of_kind(render("inference-service", image, **options), "InferenceService")[0]


def stored_model(uri: str, **options: Any) -> Any:
    given = {**STORED, "storage_uri": uri, **options}
    return of_kind(
        TARGETS["inference-service"].render("", None, given).manifests, "InferenceService"
    )[0]


def test_a_canary_in_standard_mode_stands_beside_the_stable_predictor() -> None:
    new, old = "s3://models/iris/2", "s3://models/iris/1"
    spec = stored_model(new, canary_percent=25, stable_storage_uri=old)["spec"]
    assert spec["predictor"]["model"]["storageUri"] == old
    (canary,) = spec["canary"]
    assert canary["trafficPercent"] == 25
    assert canary["predictor"]["model"]["storageUri"] == new
    assert "canaryTrafficPercent" not in spec["predictor"]


def test_a_canary_is_promoted_without_a_change_of_its_pods() -> None:
    new, old = "s3://models/iris/2", "s3://models/iris/1"
    before = stored_model(new, canary_percent=25, stable_storage_uri=old)["spec"]
    assert before["predictor"]["model"]["storageUri"] == old
    after = stored_model(new, predictor_name=canary_name(new))["spec"]["predictor"]
    canary = before["canary"][0]["predictor"]
    # What the container is named anyway.
    assert canary["model"].pop("name") == "kserve-container"
    scaling = {"minReplicas", "maxReplicas"}
    assert {key: value for key, value in after.items() if key not in scaling} == canary


def test_a_canary_in_knative_mode_is_a_percentage() -> None:
    spec = inference_service(canary_percent=25, deployment_mode="Knative")["spec"]
    assert spec["predictor"]["canaryTrafficPercent"] == 25
    assert spec["predictor"]["containers"][0]["image"] == IMAGE
    assert "canary" not in spec


def test_knative_scales_to_zero_and_finds_its_deployment_by_labels() -> None:
    manifests = render(
        "inference-service", deployment_mode="Knative", autoscaling={"minReplicas": 0}
    )
    watched = TARGETS["inference-service"].watched(manifests)
    (predictor,) = watched.deployments
    assert (predictor.minimum, predictor.name, predictor.component) == (0, "", "predictor")
    assert watched.pods == "serving.kserve.io/inferenceservice=wine"


def test_facts_about_the_bento_restart_no_predictor() -> None:
    first = inference_service(bento=make_bento(version="v1"))
    second = inference_service(bento=make_bento(version="v2"))
    assert first == second


def test_the_protocol_is_said_where_kserve_looks_only_if_the_bento_speaks_it() -> None:
    def variables(**options: Any) -> Any:
        return inference_service(**options)["spec"]["predictor"]["containers"][0].get("env", [])

    assert variables() == []
    assert variables(protocol="v2") == [{"name": "PROTOCOL", "value": "v2"}]


@pytest.mark.parametrize(
    ("spoken", "asked", "said"),
    [
        (("mlflow", "v2", "v1"), "", "v2"),
        (("v1",), "", "v1"),
        (("v2", "v1"), "v1", "v1"),
        (("v2", "v1"), "bentoml", None),
        (("mlflow",), "", None),
        ((), "", None),
    ],
)
def test_kserve_is_told_the_protocol_and_the_service_its_name(
    spoken: tuple[str, ...], asked: str, said: str | None
) -> None:
    facts = replace(BentoFacts.of(make_bento()), generated=True, protocols=spoken)
    facts = BentoFacts.from_dict(json.loads(json.dumps(facts.to_dict())))
    service = inference_service(bento=facts, protocol=asked, name="mine")
    given = service["spec"]["predictor"]["containers"][0].get("env", [])
    wanted = {"PROTOCOL": said, "KFP_BENTO_MODEL_NAME": "mine"} if said else {}
    assert {one["name"]: one["value"] for one in given} == wanted


def test_a_protocol_that_a_generated_service_does_not_speak_is_refused() -> None:
    facts = replace(BentoFacts.of(make_bento()), generated=True, protocols=("v2",))
    with pytest.raises(InvalidInput, match="protocol: wine:"):
        render("inference-service", bento=facts, protocol="v1")


def test_the_url_of_an_inference_service_is_what_its_status_says() -> None:
    target = TARGETS["inference-service"]
    manifests = render("inference-service", namespace="serving")
    assert target.address(manifests, None) == "http://wine-predictor.serving.svc"
    live = {"status": {"address": {"url": "http://wine.serving.svc/v1/models/wine:predict"}}}
    assert target.address(manifests, live) == "http://wine.serving.svc"
