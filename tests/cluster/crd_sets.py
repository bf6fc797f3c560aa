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

# Each set of a family replaces the one before; `minimal` is our own, with only the fields that
# all published generations share.
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
    "kserve": {"newest": sorted((SHARED / "kserve").glob("*.yaml"))},
    "gateway-api": {"newest": sorted((SHARED / "gateway-api").glob("*.yaml"))},
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
        for crd in definitions:
            for path in _served(crd):
                self._wait(path, answers=True)
        self._installed[family] = name

    def remove(self, family: str) -> None:
        """Deletes the definitions of a family and all objects of its kinds."""
        name = self._installed.pop(family, "")
        definitions = [crd for path in FAMILIES[family].get(name, []) for crd in _read(path)]
        for crd in definitions:
            self._api.delete(*CRD, crd["metadata"]["name"])
        for crd in definitions:
            for path in _served(crd):
                self._wait(path, answers=False)

    def _wait(self, path: str, *, answers: bool) -> None:
        """A kind that answers is served by its new schema: before, there was none at all."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            try:
                self._api.request("GET", path, limit=1)
                answered = True
            except Refused as refusal:
                if refusal.status not in (404, 503):
                    raise
                answered = False
            if answered == answers:
                return
            time.sleep(0.1)
        raise TimeoutError(f"{path} is {'not ' if answers else 'still '}served")


def _served(crd: dict[str, Any]) -> list[str]:
    spec = crd["spec"]
    return [
        f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
        for version in spec["versions"]
        if version["served"]
    ]


@cache
def _read(path: Path) -> list[dict[str, Any]]:
    documents = yaml.load_all(
        path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )
    return [document for document in documents if document]
