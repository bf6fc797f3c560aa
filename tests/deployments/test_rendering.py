"""What a Bento and a BentoDeployment say, and what is refused instead of ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from releases import render_bento_deployment, rendered
from sample_bentos import make_bento, make_model

from kfp_bento.runtime.bentos import Bento
from kfp_bento.runtime.deployments.kube.manifests import write_manifests
from kfp_bento.runtime.deployments.options.names import deployment_name
from kfp_bento.runtime.deployments.targets.yatai.names import bento_resource_name
from kfp_bento.runtime.errors import InvalidInput


def render(bento: Bento, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    image = options.pop("image", "registry.example.com/wine@sha256:" + "a1" * 32)
    first, second = render_bento_deployment(image, bento, **options)
    return first, second


def test_the_bento_names_the_image_by_digest(bento: Bento, image: str) -> None:
    resource, _ = render(bento, image=image)
    assert resource["spec"] == {
        "tag": "wine:0123456789e12345",
        "image": image,
        "context": {"bentomlVersion": "1.4.39"},
    }


def test_the_deployment_names_the_bento_and_says_what_will_run(bento: Bento) -> None:
    resource, deployment = render(bento)
    assert deployment["spec"].pop("extraPodMetadata")["annotations"].keys() == {
        "kfp-bento/pod-revision"
    }
    assert deployment["spec"] == {
        "bento": resource["metadata"]["name"],
        "ingress": {"enabled": False},
        "resources": {
            "requests": {"cpu": "300m", "memory": "500Mi"},
            "limits": {"cpu": "500m", "memory": "1Gi"},
        },
    }


def test_runners_come_from_the_bento_with_resources_each(old_style_bento: Bento) -> None:
    overrides = [{"name": "model-b", "resources": {"limits": {"cpu": "2"}}}]
    resource, deployment = render(old_style_bento, runners=overrides)
    assert resource["spec"]["runners"] == [
        {"name": "model-a", "runnableType": "MLflowPyfuncRunnable", "modelTags": ["model_a:v1"]},
        {"name": "model-b", "runnableType": "SklearnRunnable"},
    ]
    limits = {r["name"]: r["resources"]["limits"]["cpu"] for r in deployment["spec"]["runners"]}
    assert limits == {"model-a": "500m", "model-b": "2"}


def test_numbers_that_kfp_made_floats_become_integers_and_strings(bento: Bento) -> None:
    _, deployment = render(
        bento,
        resources={"requests": {"cpu": 1.0}, "limits": {"cpu": 2.0, "gpu": 1.0}},
        autoscaling={"minReplicas": 2.0, "maxReplicas": 3.0},
        envs={"THREADS": 4.0, "RATE": 0.5},
    )
    spec = deployment["spec"]
    assert spec["resources"]["requests"]["cpu"] == "1"
    assert spec["resources"]["limits"]["gpu"] == "1"
    assert spec["autoscaling"] == {"minReplicas": 2, "maxReplicas": 3}
    assert type(spec["autoscaling"]["minReplicas"]) is int
    assert spec["envs"] == [{"name": "THREADS", "value": "4"}, {"name": "RATE", "value": "0.5"}]


def test_the_origin_of_the_model_is_written_on_the_metadata_only(bento: Bento) -> None:
    for manifest in render(bento):
        assert manifest["metadata"]["annotations"] == {
            "kfp-bento/bento-version": "0123456789e12345",
            "kfp-bento/model-uri": "models:/wine@champion",
            "kfp-bento/model-name": "wine",
            "kfp-bento/model-version": "7",
            "kfp-bento/model-digest": "sha256:" + "ef" * 32,
            "kfp-bento/model-content-digest": "sha256:" + "01" * 32,
            "kfp-bento/run-id": "e0dcfa8cf23e478f92f9348174530df7",
        }
        assert "annotations" not in manifest["spec"]


def test_the_origin_of_several_models_is_one_list() -> None:
    resource, _ = render(make_bento(models=(make_model(), make_model(version="8"))))
    models = json.loads(resource["metadata"]["annotations"]["kfp-bento/models"])
    assert [model["model-version"] for model in models] == ["7", "8"]


def test_switches_of_the_operator_go_where_it_reads_them(bento: Bento) -> None:
    annotations = {"yatai.ai/deployment-strategy": "Recreate", "team/owner": "x"}
    _, deployment = render(bento, annotations=annotations)
    assert deployment["spec"]["annotations"] == {"yatai.ai/deployment-strategy": "Recreate"}
    assert deployment["metadata"]["annotations"]["team/owner"] == "x"


def test_labels_reach_the_pods_but_no_selector(bento: Bento) -> None:
    _, deployment = render(bento, labels={"team": "wine"})
    assert deployment["spec"]["extraPodMetadata"]["labels"] == {"team": "wine"}
    assert "labels" not in deployment["spec"]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("tag instead of digest", {"image": "registry.example.com/wine:1"}, "image: "),
    ("short digest", {"image": "registry.example.com/wine@sha256:abc"}, "image: "),
    ("upper-case repository", {"image": "r/Wine@sha256:" + "a1" * 32}, "image: "),
    ("secret in a variable", {"envs": [{"name": "A", "valueFrom": {}}]}, "envs[0].valueFrom"),
    ("port", {"envs": {"PORT": "80"}}, "envs[0]: PORT"),
    ("operator's variable", {"envs": {"YATAI_X": "1"}}, "envs[0]: YATAI_X"),
    ("variable twice", {"envs": [{"name": "A", "value": "1"}] * 2}, "envs[1]: A is given twice"),
    ("boolean variable", {"envs": {"A": True}}, "envs[0].value"),
    ("variable without value", {"envs": [{"name": "A"}]}, "envs[0].value"),
    ("bad variable name", {"envs": {"A B": "1"}}, "envs[0].name"),
    ("unknown env key", {"envs": [{"name": "A", "val": "1"}]}, "envs[0].val"),
    ("gpu request", {"resources": {"requests": {"gpu": "1"}}}, "resources.requests.gpu"),
    ("half a gpu", {"resources": {"limits": {"gpu": 0.5}}}, "resources.limits.gpu"),
    ("gpu by vendor", {"resources": {"limits": {"nvidia.com/gpu": 1}}}, "limits.nvidia.com/gpu"),
    ("low limit", {"resources": {"limits": {"cpu": "200m"}}}, "resources.limits.cpu: 200m is"),
    ("high request", {"resources": {"requests": {"memory": "2Gi"}}}, "limits.memory: 1Gi (the"),
    ("bad quantity", {"resources": {"limits": {"memory": "1 GB"}}}, "resources.limits.memory"),
    ("negative", {"resources": {"limits": {"cpu": -1}}}, "resources.limits.cpu"),
    ("boolean quantity", {"resources": {"limits": {"cpu": True}}}, "resources.limits.cpu"),
    ("milli-bytes", {"resources": {"requests": {"memory": "512m"}}}, "resources.requests.memory"),
    ("bytes", {"resources": {"requests": {"memory": 512}}}, "resources.requests.memory"),
    ("memory as cpu", {"resources": {"requests": {"cpu": "1Gi"}}}, "resources.requests.cpu"),
    ("micro-cores", {"resources": {"requests": {"cpu": 0.0005}}}, "resources.requests.cpu"),
    ("unknown resource", {"resources": {"limit": {}}}, "resources.limit"),
    (
        "device request",
        {"resources": {"requests": {"custom": {"a.b/c": 1}}}},
        "resources.requests.custom[a.b/c]",
    ),
    ("behavior", {"autoscaling": {"behavior": {}}}, "autoscaling.behavior"),
    ("to zero", {"autoscaling": {"minReplicas": 0, "maxReplicas": 1}}, "autoscaling.minReplicas"),
    ("wrong order", {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "maxReplicas: 2"),
    ("half a replica", {"autoscaling": {"maxReplicas": 1.5}}, "autoscaling.maxReplicas"),
    ("replicas as text", {"autoscaling": {"maxReplicas": "2"}}, "autoscaling.maxReplicas"),
    ("unknown scaling", {"autoscaling": {"min": 1}}, "autoscaling.min"),
    ("metric", {"autoscaling": {"metrics": [{"type": "Pods"}]}}, "autoscaling.metrics[0]"),
    ("runners", {"runners": [{"name": "a"}]}, "runners: wine:"),
    ("long name", {"name": "w" * 51}, "name: "),
    ("digit first", {"name": "1wine"}, "name: "),
    ("dot in name", {"name": "wine.live"}, "name: "),
    ("namespace", {"namespace": "Serving"}, "namespace: "),
    ("label value", {"labels": {"team": "a b"}}, "labels[team]"),
    ("long label", {"labels": {"team": "x" * 64}}, "labels[team]"),
    ("operator's label", {"labels": {"yatai.ai/selector": "x"}}, "labels[yatai.ai/selector]"),
    ("label key", {"labels": {"a b": "x"}}, "labels[a b]"),
    ("number label", {"labels": {"rev": 1}}, "labels[rev]"),
    ("our annotation", {"annotations": {"kfp-bento/run-id": "x"}}, "annotations[kfp-bento/run-id]"),
    (
        "builder's annotation",
        {"annotations": {"yatai.ai/force-build-image": "true"}},
        "annotations[yatai.ai/force-build-image]",
    ),
    (
        "strategy",
        {"annotations": {"yatai.ai/deployment-strategy": "BlueGreen"}},
        "annotations[yatai.ai/deployment-strategy]",
    ),
    ("secret name", {"image_pull_secrets": ["Reg Cred"]}, "image_pull_secrets[0]"),
    ("service account", {"service_account": "Me"}, "service_account"),
]


@pytest.mark.parametrize(
    ("options", "field"), [entry[1:] for entry in REFUSED], ids=[entry[0] for entry in REFUSED]
)
def test_what_cannot_be_honoured_is_refused_by_the_name_of_its_field(
    bento: Bento, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        render(bento, **options)
    assert field in refusal.value.message
    assert refusal.value.hint


def test_an_override_for_a_runner_that_the_bento_lacks_is_refused(old_style_bento: Bento) -> None:
    with pytest.raises(InvalidInput, match=r"runners\[0\].name: 'model-c'"):
        render(old_style_bento, runners=[{"name": "model-c"}])


def test_a_runner_whose_limit_is_too_low_is_named(old_style_bento: Bento) -> None:
    low = [{"name": "model-a", "resources": {"limits": {"cpu": "100m"}}}]
    with pytest.raises(InvalidInput, match=r"runners\[0\].resources.limits.cpu: 100m"):
        render(old_style_bento, runners=low)


def test_a_tag_that_cannot_be_a_label_is_refused() -> None:
    with pytest.raises(InvalidInput, match="bento version"):
        render(make_bento(version="v" * 64))


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("demo_svc:v1", "demo-svc--v1"),
        ("Demo.Svc:1.0", "demo-svc--1-0"),
        ("w" * 60 + ":v1", "bento-b372dbfd91056755685551b9b3de2d2b"),
    ],
)
def test_a_tag_becomes_a_resource_name_by_the_operators_own_rule(tag: str, name: str) -> None:
    assert bento_resource_name(tag) == name


@pytest.mark.parametrize("name", ["wine", "9lives", "Wine_Quality.v2", "w" * 200, "-x-", "1"])
def test_every_bento_name_gives_a_valid_and_stable_deployment_name(name: str) -> None:
    made = deployment_name(name)
    assert len(made) <= 50
    assert made[0].isalpha()
    assert made == deployment_name(made)


def test_two_long_names_that_begin_alike_stay_apart() -> None:
    assert deployment_name("w" * 60 + "a") != deployment_name("w" * 60 + "b")


def test_files_are_ascii_sorted_and_the_same_every_time(bento: Bento, tmp_path: Path) -> None:
    manifests = render(
        bento, annotations={"note": "Gr\u00fc\u00dfe", "a/z": "1"}, labels={"t": "1"}
    )
    paths = write_manifests(manifests, tmp_path / "one")
    again = write_manifests(manifests, tmp_path / "two")
    names = ["bento-wine--0123456789e12345.yaml", "bentodeployment-wine.yaml"]
    assert [path.name for path in paths] == names
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    text = paths[0].read_bytes().decode("ascii")
    assert text.index("apiVersion") < text.index("kind") < text.index("metadata")
    assert [yaml.safe_load(path.read_text()) for path in paths] == list(manifests)


@pytest.mark.parametrize("version", ["12345e6789", "1_000", "0x1f", "2026-01-01", "on", "y", "1.0"])
def test_text_that_another_parser_takes_for_a_number_is_quoted(
    version: str, tmp_path: Path
) -> None:
    path, _ = write_manifests(render(make_bento(version=version)), tmp_path)
    assert f'kfp-bento/bento-version: "{version}"' in path.read_text()


def test_a_file_that_is_right_already_is_not_written_again(bento: Bento, tmp_path: Path) -> None:
    (path, _) = write_manifests(render(bento), tmp_path)
    before = path.stat()
    write_manifests(render(bento), tmp_path)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_pods_that_are_replaced_answer_until_nobody_asks_them(
    mode: str, bento: Bento, image: str
) -> None:
    """Knative's queue-proxy sees to it by itself."""
    *_, service = rendered("inference-service", image, bento, deployment_mode=mode)
    (container,) = service["spec"]["predictor"]["containers"]
    waits = {"preStop": {"exec": {"command": ["sleep", "5"]}}}
    assert container.get("lifecycle") == (waits if mode == "Standard" else None)
    deployment, _ = rendered("workload", image, bento)
    assert deployment["spec"]["template"]["spec"]["containers"][0]["lifecycle"] == waits
