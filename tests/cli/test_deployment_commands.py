"""deploy, release and rbac: what they take, write, print and answer, by a stub at most."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_bento_command import assert_refused, kfp_bento, kfp_bento_here
from sample_bentos import IMAGE, write_bento
from stub_api_server import ApiServer, conflict, refusal, serve_api, write_kubeconfig

from kfp_bento.runtime import deployments
from kfp_bento.runtime.cli import deploy, rbac
from kfp_bento.runtime.deployments import OPERATIONS, TARGETS
from kfp_bento.runtime.deployments.targets.permissions import needed_permissions, role_rules


@pytest.fixture
def bento(tmp_path: Path) -> Path:
    return write_bento(tmp_path / "bento")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with serve_api(ApiServer()) as server:
        config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        monkeypatch.setenv("KUBECONFIG", str(config))
        yield server


def kinds(directory: Path) -> list[str]:
    return sorted(yaml.safe_load(path.read_text())["kind"] for path in directory.iterdir())


# -- render ----------------------------------------------------------------------------------


def test_a_release_is_rendered_for_each_target(bento: Path, tmp_path: Path) -> None:
    wanted = {
        "bento-deployment": ([IMAGE], ["Bento", "BentoDeployment"]),
        "bento-request": (["--set", "archive_url=s3://b/x.bento"], ["BentoDeployment"]),
        "inference-service": ([IMAGE], ["ConfigMap", "InferenceService"]),
        "workload": ([IMAGE], ["Deployment", "Service"]),
    }
    assert set(wanted) == set(TARGETS)
    for target, (arguments, expected) in wanted.items():
        to = tmp_path / target
        place = ("--bento", bento, "--target", target, "--to", to)
        done = kfp_bento_here("deploy", "render", *arguments, *place)
        assert done.returncode == 0, done.stderr
        assert set(expected) <= set(kinds(to))
        assert done.stdout.startswith("Rendered wine\n")
        assert all(str(path) in done.stdout for path in to.iterdir())


def test_a_stored_model_needs_no_image_and_no_bento(tmp_path: Path) -> None:
    stored = ("storage_uri=s3://models/iris", "model_format=mlflow", "model_version=2")
    settings = [part for one in stored for part in ("--set", one)]
    done = kfp_bento_here(
        *("deploy", "render", "-t", "inference-service", "--name", "iris", "--to", tmp_path / "m"),
        *(*settings, "--json"),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["name"], told["image"], told["mode"]) == ("iris", "", "rendered")
    assert told["directory"] == str(tmp_path / "m")


def test_options_come_from_a_file_from_set_and_from_options_of_their_own(
    bento: Path, tmp_path: Path
) -> None:
    (tmp_path / "options.yaml").write_text("namespace: red\nlabels: {team: wine}\n")
    done = kfp_bento_here(
        *("deploy", "render", IMAGE, "--bento", bento, "-t", "workload", "--to", tmp_path / "m"),
        *("--options", tmp_path / "options.yaml", "--set", "labels.tier=gold", "-n", "blue"),
        *("--env", "THREADS=4", "--resources", "{limits: {cpu: 2}}"),
    )
    assert done.returncode == 0, done.stderr
    made = yaml.safe_load((tmp_path / "m" / "deployment-wine.yaml").read_text())
    assert made["metadata"]["namespace"] == "blue"
    assert {"team": "wine", "tier": "gold"}.items() <= made["metadata"]["labels"].items()
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert {"name": "THREADS", "value": "4"} in container["env"]
    assert container["resources"]["limits"] == {"cpu": "2"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "nothing=1"], "nothing: the target workload has no such option"),
        (["--set", "startup_seconds=soon"], "startup_seconds: 'soon' is no integer"),
        (["--set", "name=x", "--name", "y"], "name: it is given by --set and by --name"),
        (["--options", "none.yaml"], "--options none.yaml cannot be read"),
        (["--resources", "{cpu: 1"], "--resources"),
        (["--target", "moon"], "target: 'moon' is no deployment target"),
        (["--bento", "none"], "none is not a bento"),
    ],
)
def test_a_mistake_is_refused_and_writes_nothing(
    bento: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    given = ("--bento", bento, "-t", "workload", "--to", tmp_path / "m")
    assert_refused(kfp_bento_here("deploy", "render", IMAGE, *given, *arguments), told)
    assert not (tmp_path / "m").exists()


def test_a_bento_that_is_needed_is_asked_for(tmp_path: Path) -> None:
    done = kfp_bento_here("deploy", "render", IMAGE, "--to", tmp_path / "m")
    assert_refused(done, "bento: the target bento-deployment serves bentos only")


# -- diff and apply --------------------------------------------------------------------------


def test_a_diff_is_plain_text_that_says_how_much_changes(api: ApiServer, bento: Path) -> None:
    done = kfp_bento("deploy", "diff", IMAGE, "--bento", bento)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("--- /dev/null\n+++ release/bento/wine--v1\n")
    assert "\x1b" not in done.stdout
    assert done.stderr == "Would be: 2 created.\n"
    assert api.objects == {}


def test_a_diff_is_objects_for_a_machine_and_a_document_for_a_person(
    api: ApiServer, bento: Path, tmp_path: Path
) -> None:
    page = tmp_path / "diff.md"
    done = kfp_bento_here("deploy", "diff", IMAGE, "--bento", bento, "--json", "--markdown", page)
    told = json.loads(done.stdout)
    assert told["changed"] is True
    assert [(one["object"], one["change"]) for one in told["objects"]] == [
        ("Bento default/wine--v1", "created"),
        ("BentoDeployment default/wine", "created"),
    ]
    assert all(one["text"].startswith("--- /dev/null") for one in told["objects"])
    assert page.read_text().startswith("# What the release changes")


def test_a_diff_answers_with_its_exit_code_only_when_asked(
    api: ApiServer, bento: Path, tmp_path: Path
) -> None:
    asked = ("deploy", "diff", IMAGE, "--bento", bento, "--exit-code")
    assert kfp_bento_here(*asked).returncode == 1
    place = ("--bento", bento, "--to", tmp_path / "m")
    assert kfp_bento_here("deploy", "apply", IMAGE, *place, "--wait-seconds", 0).returncode == 0
    same = kfp_bento_here(*asked)
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "Nothing would change.\n")


def test_an_apply_that_does_not_wait_says_what_it_did(
    api: ApiServer, bento: Path, tmp_path: Path
) -> None:
    place = ("--bento", bento, "--to", tmp_path / "m", "--wait-seconds", "0", "-n", "serving")
    told = json.loads(kfp_bento("deploy", "apply", IMAGE, *place, "--json").stdout)
    assert [(one["object"], one["change"]) for one in told["objects"]] == [
        ("Bento serving/wine--v1", "created"),
        ("BentoDeployment serving/wine", "created"),
    ]
    assert (told["mode"], told["waited"], told["changed"]) == ("applied", False, True)
    assert told["verdict"]["reason"] == "NotWaited"
    assert told["url"] == "http://wine.serving.svc:3000"
    again = kfp_bento("deploy", "apply", IMAGE, *place)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("unchanged") == 2
    assert kinds(tmp_path / "m") == ["Bento", "BentoDeployment"]


@pytest.mark.parametrize("command", ["diff", "apply"])
def test_a_conflict_names_the_owner_and_changes_nothing(
    api: ApiServer, bento: Path, tmp_path: Path, command: str
) -> None:
    api.refusals[("bentodeployments", True)] = conflict(("argocd", ".spec.bento"))
    place = ("--to", tmp_path / "m") if command == "apply" else ()
    done = kfp_bento_here("deploy", command, IMAGE, "--bento", bento, *place)
    assert_refused(done, "argocd owns .spec.bento")
    assert api.objects == {}


def test_a_missing_right_is_named(api: ApiServer, bento: Path, tmp_path: Path) -> None:
    api.refusals[("bentoes", True)] = refusal(403, "Forbidden", "cannot patch bentoes")
    done = kfp_bento_here(
        "deploy", "apply", IMAGE, "--bento", bento, "--to", tmp_path / "m", "--json"
    )
    assert done.returncode == 2
    assert "cannot patch bentoes" in json.loads(done.stderr)["error"]
    assert done.stdout == ""


def test_without_a_cluster_nothing_is_applied(bento: Path, tmp_path: Path) -> None:
    place = ("--bento", bento, "--to", tmp_path / "m")
    nowhere = {"KUBECONFIG": str(tmp_path / "none"), "KUBERNETES_SERVICE_HOST": ""}
    assert_refused(kfp_bento("deploy", "apply", IMAGE, *place, **nowhere), "No cluster")


# -- release ---------------------------------------------------------------------------------


def test_a_namespace_without_releases_says_so(api: ApiServer) -> None:
    done = kfp_bento_here("release", "list", "-n", "serving")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "Namespace serving has no releases.\n"
    assert json.loads(kfp_bento_here("release", "list", "--json").stdout) == []


@pytest.mark.parametrize("command", ["status", "wait", "roll-back", "delete"])
def test_a_release_that_is_not_there(api: ApiServer, command: str) -> None:
    confirmed = ("--yes",) if command == "delete" else ()
    assert_refused(
        kfp_bento_here("release", command, "wine", *confirmed), "no release of that name"
    )


def test_the_status_of_what_is_not_there_has_a_code_when_asked(api: ApiServer) -> None:
    asked = ("release", "status", "wine", "--target", "bento-deployment")
    done = kfp_bento_here(*asked)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "wine is not there")
    assert kfp_bento_here(*asked, "--exit-code", "--json").returncode == 1


def test_nothing_is_deleted_unasked(api: ApiServer) -> None:
    done = kfp_bento_here("release", "delete", "wine", "--target", "workload")
    assert_refused(done, "confirmed on a terminal")
    assert "--yes" in done.stderr


@pytest.mark.parametrize("name", ["", "wine/status", "wine,other", "[/]"])
def test_what_is_no_name_is_never_asked_for(api: ApiServer, name: str) -> None:
    assert_refused(kfp_bento_here("release", "status", name, "-t", "workload"), "is no DNS-1123")
    assert_refused(kfp_bento_here("release", "list", "-n", name), "--namespace")


def test_a_target_that_does_not_exist(api: ApiServer) -> None:
    assert_refused(
        kfp_bento_here("release", "status", "wine", "-t", "moon"), "no deployment target"
    )


# -- options and rights ----------------------------------------------------------------------


def test_the_help_names_every_target_and_every_operation() -> None:
    assert all(target in deploy.TARGETS for target in TARGETS)
    told = rbac.OPERATIONS
    assert all(operation.replace("_", "-") in told for operation in OPERATIONS)


def test_the_options_of_a_target_are_a_table(tmp_path: Path) -> None:
    done = kfp_bento_here("deploy", "options", "workload")
    assert done.returncode == 0
    heading, *rows = done.stdout.splitlines()
    assert heading.split() == ["option", "type", "default", "meaning"]
    assert len(rows) == len(TARGETS["workload"].options_type.model_fields)
    told = json.loads(kfp_bento_here("deploy", "options", "workload", "--json").stdout)
    assert {"name", "type", "default", "meaning"} == set(told[0])
    assert_refused(kfp_bento_here("deploy", "options", "moon"), "no deployment target")


def test_the_rights_are_those_that_are_shipped() -> None:
    folder = Path(deployments.__file__).with_name("rbac") / "workload"
    shipped = [
        *yaml.safe_load_all((folder / "role.yaml").read_text()),
        *yaml.safe_load_all((folder / "rolebinding.yaml").read_text()),
    ]
    place = "kubeflow-user-example-com"
    printed = list(yaml.safe_load_all(kfp_bento_here("rbac", "-n", place, "-t", "workload").stdout))
    for one in shipped:
        one["metadata"]["namespace"] = place
    assert printed == shipped


def test_the_rights_are_those_of_the_operations_asked_for() -> None:
    asked = ("rbac", "--target", "workload", "--operation", "status", "--operation", "roll-back")
    printed = json.loads(kfp_bento_here(*asked, "--json").stdout)
    role, *_ = printed["items"]
    wanted: Any = needed_permissions(["status", "roll_back"], ["workload"])
    assert role["rules"] == role_rules(wanted)
    asked = ("rbac", "-t", "workload", "--operation", "fly")
    assert_refused(kfp_bento_here(*asked), "'fly' is no operation")


def test_rights_are_asked_for_by_target() -> None:
    assert_refused(kfp_bento_here("rbac"), "--target: it is missing")
