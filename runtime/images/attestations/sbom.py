"""The bill of materials of an image: CycloneDX 1.6, written from what the build knows.

Nothing is scanned: every wheel, package and model of an image is an input of its build. The
document follows from the image's content alone, so that equal images have equal documents. It
names neither a repository nor the image's digest; the manifest that attaches it does that.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.attestations.image_build import (
    DISTRIBUTION,
    ImageBuild,
    builder_version,
    deb_url,
    package_url,
    unique,
    wheel_url,
)
from kfp_bento.runtime.images.oci.config import IMAGE_TITLE, canonical_json, timestamp

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import BentoModel
    from kfp_bento.runtime.images.base.base_image import BaseImage
    from kfp_bento.runtime.images.debian import DebianPackage
    from kfp_bento.runtime.images.python.selection import Wheel

SBOM_TYPE = "application/vnd.cyclonedx+json"

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:kfp-bento:sbom")


def cyclonedx_sbom(build: ImageBuild) -> bytes:
    """Write the bill of materials as CycloneDX 1.6 JSON.

    The dependency graph is flat: the image depends on every component. What the components need
    of each other is not said, and so there is no entry for them (an empty one would mean that
    they need nothing). `compositions` say that the list is complete, and that what the base
    holds is not listed.

    Returns:
        The same bytes for the same content, in whatever order its parts come; the serial number,
        too, follows from the content.
    """
    image = {
        "type": "container",
        "bom-ref": f"image:{build.name}:{build.version}",
        "name": build.name,
        "version": build.version,
    }
    moment = timestamp(build.epoch)
    return _written(image, moment, build.builder, _components(build), _base(build.base))


def sbom_on_base(content: bytes, base: BaseImage) -> bytes | None:
    """Write the bill of materials for an image that has been put on another base.

    Args:
        content: The bill of materials that `cyclonedx_sbom` wrote for the image as it was.
        base: The new base.

    Returns:
        What `cyclonedx_sbom` writes for the image on the new base; None for a bill that this
        version of it would not have written: it was made by another tool, or changed since.
    """
    try:
        document = parse_json(content)
        image, moment = document["metadata"]["component"], document["metadata"]["timestamp"]
        builder = document["metadata"]["tools"]["components"][0]["version"]
        own = [item for item in document["components"] if item["type"] != "container"]
        below = [item for item in document["components"] if item["type"] == "container"]
        if _written(image, moment, builder, own, below[0] if below else None) != content:
            return None
    except (ValueError, LookupError, TypeError):
        return None
    return _written(image, moment, builder_version(), own, _base(base))


def _written(
    image: Mapping[str, Any],
    moment: str,
    builder: str,
    own: Iterable[dict[str, Any]],
    base: dict[str, Any] | None,
) -> bytes:
    """Give the document for an image, as a component, and the components that it is made of."""
    parts = [*own, *([base] if base else [])]
    components = sorted(parts, key=lambda item: str(item["bom-ref"]))
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": moment,
            "lifecycles": [{"phase": "build"}],
            "tools": {
                "components": [{"type": "application", "name": DISTRIBUTION, "version": builder}]
            },
            "component": image,
        },
        "components": components,
        "dependencies": [
            {"ref": image["bom-ref"], "dependsOn": [item["bom-ref"] for item in components]}
        ],
        "compositions": _compositions(image["bom-ref"], base),
    }
    serial = uuid.uuid5(_NAMESPACE, canonical_json(document).decode())
    return canonical_json({**document, "serialNumber": f"urn:uuid:{serial}"})


def _components(build: ImageBuild) -> list[dict[str, Any]]:
    """All but the base."""
    return [
        {
            "type": "application",
            "bom-ref": f"bento:{build.name}:{build.version}",
            "name": build.name,
            "version": build.version,
            "description": "The bento: service source, BentoML's files and the models' place.",
        },
        *(_noted(_wheel(wheel), wheel.sha256, build) for wheel in unique(build.wheels)),
        *(_noted(_deb(deb), deb.sha256, build) for deb in unique(build.debs)),
        *(_model(model) for model in build.models),
    ]


def _noted(component: dict[str, Any], sha256: str, build: ImageBuild) -> dict[str, Any]:
    """Give the component, marked if nobody has seen that it is what the image holds."""
    if sha256 not in build.unverified_parts:
        return component
    note = {"name": f"{DISTRIBUTION}:reused", "value": "on the word of the registry"}
    return {**component, "properties": [note]}


def _wheel(wheel: Wheel) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": wheel_url(wheel),
        "name": wheel.name,
        "version": wheel.version,
        "purl": wheel_url(wheel),
        "hashes": _hashes(wheel.sha256),
        "externalReferences": [{"type": "distribution", "url": quote(wheel.filename)}],
    }


def _deb(deb: DebianPackage) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": deb_url(deb),
        "name": deb.name,
        "version": deb.version,
        "purl": deb_url(deb),
        "hashes": _hashes(deb.sha256),
    }


def _model(model: BentoModel) -> dict[str, Any]:
    name, _, version = model.tag.partition(":")
    signature = model.provenance.get("signature") or {}
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{name}:{version}",
        "name": name,
        "version": version,
        "hashes": _hashes(model.digest),
        "properties": [_property("hash", "of the model's files and their names")],
    }
    flavors = sorted(model.provenance.get("flavors") or ())
    component["properties"] += [_property("flavor", flavor) for flavor in flavors]
    if params := signature.get("params"):
        component["properties"].append(_property("parameters", _compact(params)))
    sides = {
        side: [{"format": _compact(column)} for column in signature[side]]
        for side in ("inputs", "outputs")
        if signature.get(side)
    }
    if sides:
        component["modelCard"] = {"modelParameters": sides}
    return component


def _base(base: BaseImage) -> dict[str, Any] | None:
    """Give the base by what it says of itself and not by where it was fetched.

    Its name is the title among its labels, else `python` where it says which Python it has, as
    Docker's official images do, else `base`. None for one made of this machine: nobody listed it.
    """
    if not base.digest:
        return None
    settings = base.config.get("config") or {}
    title = (settings.get("Labels") or {}).get(IMAGE_TITLE, "")
    python = any(pair.startswith("PYTHON_VERSION=") for pair in settings.get("Env") or ())
    name = title or ("python" if python else "base")
    qualifiers = {"arch": str(base.config.get("architecture", ""))}
    url = package_url("oci", name.rpartition("/")[2].lower(), base.digest, qualifiers)
    return {
        "type": "container",
        "bom-ref": url,
        "name": name,
        "version": base.digest,
        "purl": url,
        "hashes": _hashes(base.digest),
    }


def _compositions(image: str, base: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if base is None:
        return [{"aggregate": "incomplete", "assemblies": [image]}]
    return [
        {"aggregate": "complete", "assemblies": [image]},
        {"aggregate": "unknown", "assemblies": [base["bom-ref"]]},
    ]


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}]


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"{DISTRIBUTION}:model:{name}", "value": value}


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
