"""The custom resource definitions that a test wants, installed one set after another."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from kube_api import KubeApi, Refused

SHARED = Path(__file__).resolve().parents[3] / "shared" / "crds"
OWN = Path(__file__).with_name("crds")
SECONDS = 60.0
CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", None)

_BENTO = "resources.yatai.ai_bentoes.yaml"
_REQUEST = "resources.yatai.ai_bentorequests.yaml"
_DEPLOYMENT = "serving.yatai.ai_bentodeployments.yaml"

# Each set of a family replaces the one before; `minimal` is our own, with the fields that we
# render, as all published generations have them.
YATAI: dict[str, list[Path]] = {
    "minimal": [OWN / "yatai.yaml"],
    "1.1.4 and 1.1.3": [
        SHARED / "image-builder-v1.1.3" / _BENTO,
        SHARED / "image-builder-v1.1.3" / _REQUEST,
        SHARED / "deployment-v1.1.4" / _DEPLOYMENT,
    ],
    "1.1.21 and 1.2.28": [
        SHARED / "image-builder-v1.2.28" / _BENTO,
        SHARED / "image-builder-v1.2.28" / _REQUEST,
        SHARED / _DEPLOYMENT,
    ],
    "newest": [SHARED / _BENTO, SHARED / _REQUEST, SHARED / _DEPLOYMENT],
}
FAMILIES: dict[str, dict[str, list[Path]]] = {
    "yatai": YATAI,
    **{
        family: {
            "minimal": [OWN / f"{family}.yaml"],
            "newest": sorted((SHARED / family).glob("*.yaml")),
        }
        for family in ("kserve", "gateway-api", "monitoring")
    },
    "pipelines": {"newest": sorted((SHARED / "pipelines").glob("*.yaml"))},
}


def available(family: str) -> list[str]:
    """The sets of a family whose files are here, oldest first."""
    return [
        name
        for name, paths in FAMILIES[family].items()
        if paths and all(path.is_file() for path in paths)
    ]


class InstalledCrds:
    """Knows which set of each family the cluster has and changes it where another is wanted."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._installed: dict[str, str] = {}

    def ensure(self, family: str, name: str) -> None:
        """Installs a set; definitions of another set, and all their objects, go first."""
        if self._installed.get(family) == name:
            return
        self.remove(family)
        definitions = [crd for path in FAMILIES[family][name] for crd in _read(path)]
        for crd in definitions:
            self._api.apply(crd, manager="crd-installer")
        self._wait(definitions, served=True)
        self._installed[family] = name

    def remove(self, family: str) -> None:
        """Deletes the definitions of a family and all objects of its kinds."""
        name = self._installed.pop(family, "")
        definitions = [crd for path in FAMILIES[family].get(name, []) for crd in _read(path)]
        for crd in definitions:
            self._api.delete(*CRD, crd["metadata"]["name"])
        self._wait(definitions, served=False)

    def _wait(self, definitions: list[dict[str, Any]], *, served: bool) -> None:
        """Waits for discovery and for the kinds themselves, which are not of one mind at first.

        A kind that answers does so by its new schema, since before it was gone.
        """
        deadline = time.monotonic() + SECONDS
        for group, version, plural in [key for crd in definitions for key in _served(crd)]:
            path = f"/apis/{group}/{version}/{plural}"
            while {self._discovered(group, version, plural), self._answers(path)} != {served}:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} is {'not' if served else 'still'} served")
                time.sleep(0.1)

    def _discovered(self, group: str, version: str, plural: str) -> bool:
        groups = {entry["name"]: entry for entry in self._api.request("GET", "/apis")["groups"]}
        versions = groups.get(group, {}).get("versions", [])
        if version not in [entry["version"] for entry in versions]:
            return False
        try:
            resources = self._api.request("GET", f"/apis/{group}/{version}")["resources"]
        except Refused as refusal:
            return _not_there(refusal)
        return plural in [entry["name"] for entry in resources]

    def _answers(self, path: str) -> bool:
        try:
            self._api.request("GET", path, limit=1)
        except Refused as refusal:
            return _not_there(refusal)
        return True


def _not_there(refusal: Refused) -> bool:
    """False where that is what the refusal says."""
    if refusal.status not in (404, 503):
        raise refusal
    return False


def _served(crd: dict[str, Any]) -> list[tuple[str, str, str]]:
    spec = crd["spec"]
    return [
        (spec["group"], version["name"], spec["names"]["plural"])
        for version in spec["versions"]
        if version["served"]
    ]


@cache
def _read(path: Path) -> list[dict[str, Any]]:
    documents = yaml.load_all(
        path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )
    return [document for document in documents if document]
