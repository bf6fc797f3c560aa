"""The Role that is shipped is the rights that are needed; tests/cluster/ checks these in use."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kfp_bento.runtime import deployments
from kfp_bento.runtime.deployments import TARGETS, access_manifests
from kfp_bento.runtime.deployments.targets.permissions import (
    Permission,
    needed_permissions,
    role_rules,
)
from kfp_bento.runtime.errors import InvalidInput

RBAC = Path(deployments.__file__).with_name("rbac")


def permissions_of(rules: list[dict[str, list[str]]]) -> set[Permission]:
    return {
        Permission(group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("target", TARGETS)
def test_the_role_grants_what_its_target_needs_and_no_more(target: str) -> None:
    role = yaml.safe_load((RBAC / target / "role.yaml").read_text())
    assert permissions_of(role["rules"]) == needed_permissions(targets=[target])


def test_there_is_a_base_for_each_target_and_none_for_all() -> None:
    assert sorted(path.name for path in RBAC.iterdir()) == sorted(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_nobody_gets_kinds_of_targets_that_are_not_used(target: str) -> None:
    role = yaml.safe_load((RBAC / target / "role.yaml").read_text())
    writing = {one.resource for one in permissions_of(role["rules"]) if one.verb == "patch"}
    kinds = {kind.plural for kind in TARGETS[target].kinds}
    woken = TARGETS[target].waker
    assert writing == kinds | ({woken[0].plural} if woken else set())


def test_rules_say_the_same_as_permissions() -> None:
    assert permissions_of(role_rules(needed_permissions())) == needed_permissions()


def test_nothing_is_granted_that_could_raise_rights_or_read_secrets() -> None:
    found = needed_permissions()
    assert not {one.resource for one in found} & {"secrets", "roles", "rolebindings", "pods/exec"}
    assert {one.verb for one in found} <= {"create", "delete", "get", "list", "patch", "watch"}
    assert "*" not in {value for one in found for value in (one.group, one.resource, one.verb)}


def test_looking_changes_nothing() -> None:
    found = needed_permissions(["wait", "status"])
    assert {one.verb for one in found} == {"get", "list", "watch"}


def test_each_target_needs_only_its_own_kinds_to_be_written() -> None:
    for target in TARGETS.values():
        found = needed_permissions(["apply"], [target.kind])
        kinds = {(kind.group, kind.plural) for kind in target.kinds}
        written = {(one.group, one.resource) for one in found if one.verb == "create"}
        assert written == kinds
        others = {one.verb for one in found if (one.group, one.resource) not in kinds}
        # What its operator is woken by, and what an image builder would write over.
        assert others <= {"delete", "get", "patch"}


@pytest.mark.parametrize(("operations", "targets"), [(["fly"], []), ([], ["moon"])])
def test_what_does_not_exist_needs_nothing(operations: list[str], targets: list[str]) -> None:
    with pytest.raises(InvalidInput, match=r"is no (operation|target)"):
        needed_permissions(operations, targets)


@pytest.mark.parametrize("target", TARGETS)
def test_both_identities_of_pipeline_steps_get_the_role(target: str) -> None:
    folder = RBAC / target
    bindings = list(yaml.safe_load_all((folder / "rolebinding.yaml").read_text()))
    role = yaml.safe_load((folder / "role.yaml").read_text())
    assert [entry["subjects"][0]["name"] for entry in bindings] == [
        "pipeline-runner",
        "default-editor",
    ]
    assert {entry["roleRef"]["name"] for entry in bindings} == {role["metadata"]["name"]}
    base = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert sorted(base["resources"]) == ["role.yaml", "rolebinding.yaml"]
    replaced = base["replacements"][0]
    assert replaced["source"]["name"] == bindings[1]["metadata"]["name"]
    assert replaced["targets"][0]["select"]["name"] == bindings[1]["metadata"]["name"]


def test_bases_of_two_targets_can_stand_in_one_namespace() -> None:
    names = [
        (one["kind"], one["metadata"]["name"])
        for target in TARGETS
        for one in access_manifests(target, "serving")
    ]
    assert len(names) == len(set(names)) == 3 * len(TARGETS)
