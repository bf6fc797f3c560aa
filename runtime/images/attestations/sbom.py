"""The bill of materials of an image: CycloneDX 1.6, written from what the build knows.

Nothing is scanned: every wheel, package and model of an image is an input of its build. The
document follows from the image's content alone, so that equal images have equal documents. It
names neither a repository nor the image's digest; the manifest that attaches it does that.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import quote

from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.oci.config import IMAGE_TITLE, canonical_json, timestamp

SBOM_TYPE = "application/vnd.cyclonedx+json"
DISTRIBUTION = "kfp-bento"

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:kfp-bento:sbom")


def builder_version() -> str:
    """The version of kfp-bento that is running; ``unknown`` for an uninstalled source tree."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, order=True)
class WheelFact:
    """A wheel of the virtual environment.

    Attributes:
        name: The project's name, as the wheel writes it.
        version: Its version.
        filename: The wheel's file name.
        sha256: SHA-256 of the wheel file, in hexadecimal.
    """

    name: str
    version: str
    filename: str
    sha256: str

    @property
    def purl(self) -> str:
        """The package URL, type ``pypi``."""
        return package_url("pypi", self.name.lower().replace("_", "-"), self.version)


@dataclass(frozen=True, order=True)
class DebFact:
    """A Debian package of the system layer.

    Attributes:
        name: The binary package's name.
        version: Its version, with the epoch if it has one.
        architecture: Debian's name for it, such as ``amd64`` or ``all``.
        sha256: SHA-256 of the ``.deb`` file, in hexadecimal.
        release: Code name of the release it came from, such as ``bookworm``.
    """

    name: str
    version: str
    architecture: str
    sha256: str
    release: str

    @property
    def purl(self) -> str:
        """The package URL, type ``deb``."""
        qualifiers = {"arch": self.architecture, "distro": self.release}
        return package_url("deb/debian", self.name.lower(), self.version, qualifiers)


@dataclass(frozen=True)
class ModelFact:
    """A model, by what follows from its files.

    Attributes:
        name: Name in the bento.
        version: Version in the bento; follows from the content.
        digest: Content digest, ``sha256:…``.
        flavors: Its MLflow flavors.
        signature: Its MLflow signature as lists ``inputs``, ``outputs`` and ``params`` of
            specifications (``ModelSignature.to_dict``); empty if it has none.
    """

    name: str
    version: str
    digest: str
    flavors: tuple[str, ...] = ()
    signature: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BaseFact:
    """The base image, by what it says of itself and not by where it was fetched.

    Attributes:
        name: What it calls itself.
        digest: Digest of its manifest for the platform, ``sha256:…``.
        architecture: Its processor, in the words of the image specification.
    """

    name: str
    digest: str
    architecture: str

    @classmethod
    def from_config(cls, config: Mapping[str, Any], digest: str) -> BaseFact:
        """The facts of a base image, from its configuration file.

        The name is the title among its labels, else ``python`` where it says which Python it
        has, as Docker's official images do, else ``base``.
        """
        settings = config.get("config") or {}
        title = (settings.get("Labels") or {}).get(IMAGE_TITLE, "")
        environment = settings.get("Env") or ()
        python = any(pair.startswith("PYTHON_VERSION=") for pair in environment)
        name = title or ("python" if python else "base")
        return cls(name, digest, str(config.get("architecture", "")))

    @property
    def purl(self) -> str:
        """The package URL, type ``oci``, which names no registry unless told to."""
        name = self.name.rpartition("/")[2].lower()
        return package_url("oci", name, self.digest, {"arch": self.architecture})


@dataclass(frozen=True)
class SoftwareBill:
    """What an image is made of.

    Attributes:
        name: Name of the bento.
        version: Version of the bento.
        epoch: Seconds since 1970 that stand in every timestamp of the image.
        wheels: The wheels of its environment.
        debs: The Debian packages put on top of the base.
        models: Its models.
        base: The base image; None for one made of the building machine, which nobody listed.
        unverified: SHA-256 of those wheels and packages whose layer was reused on the word of a
            registry: that they are in it was not seen.
        builder: Version of kfp-bento.
    """

    name: str
    version: str
    epoch: int
    wheels: tuple[WheelFact, ...] = ()
    debs: tuple[DebFact, ...] = ()
    models: tuple[ModelFact, ...] = ()
    base: BaseFact | None = None
    unverified: frozenset[str] = frozenset()
    builder: str = field(default_factory=builder_version)


def cyclonedx_sbom(bill: SoftwareBill) -> bytes:
    """Writes the bill of materials as CycloneDX 1.6 JSON.

    The dependency graph is flat: the image depends on every component. What the components need
    of each other is not said, and so there is no entry for them (an empty one would mean that
    they need nothing). ``compositions`` say that the list is complete, and that what the base
    holds is not listed.

    Returns:
        The same bytes for the same bill, in whatever order its parts come; the serial number, too,
        follows from the content.
    """
    image = {
        "type": "container",
        "bom-ref": f"image:{bill.name}:{bill.version}",
        "name": bill.name,
        "version": bill.version,
    }
    below = _base(bill.base) if bill.base else None
    return _written(image, timestamp(bill.epoch), bill.builder, _components(bill), below)


def sbom_on_base(content: bytes, base: BaseFact | None) -> bytes | None:
    """Writes the bill of materials for an image that has been put on another base.

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
    return _written(image, moment, builder_version(), own, _base(base) if base else None)


def _written(
    image: Mapping[str, Any],
    moment: str,
    builder: str,
    own: Iterable[dict[str, Any]],
    base: dict[str, Any] | None,
) -> bytes:
    """The document for an image, as a component, and the components that it is made of."""
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


def package_url(
    kind: str, name: str, version: str, qualifiers: Mapping[str, str] | None = None
) -> str:
    """A package URL (purl specification); qualifiers without a value are left out.

    Args:
        kind: The type, with the namespace if the type has one: ``deb/debian``.
        name: The name, written as the type wants it.
        version: The version, which may be empty.
        qualifiers: More about it, such as ``arch``.
    """
    url = f"pkg:{kind}/{quote(name, safe=':')}"
    if version:
        url += f"@{quote(version, safe=':')}"
    pairs = sorted((key, value) for key, value in (qualifiers or {}).items() if value)
    if pairs:
        url += "?" + "&".join(f"{key}={quote(value, safe=':/')}" for key, value in pairs)
    return url


def _components(bill: SoftwareBill) -> list[dict[str, Any]]:
    """All but the base."""
    return [
        {
            "type": "application",
            "bom-ref": f"bento:{bill.name}:{bill.version}",
            "name": bill.name,
            "version": bill.version,
            "description": "The bento: service source, BentoML's files and the models' place.",
        },
        *(_noted(_wheel(wheel), wheel.sha256, bill) for wheel in set(bill.wheels)),
        *(_noted(_deb(deb), deb.sha256, bill) for deb in set(bill.debs)),
        *(_model(model) for model in bill.models),
    ]


def _noted(component: dict[str, Any], sha256: str, bill: SoftwareBill) -> dict[str, Any]:
    """The component, marked if nobody has seen that it is what the image holds."""
    if sha256 not in bill.unverified:
        return component
    note = {"name": f"{DISTRIBUTION}:reused", "value": "on the word of the registry"}
    return {**component, "properties": [note]}


def _wheel(wheel: WheelFact) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": wheel.purl,
        "name": wheel.name,
        "version": wheel.version,
        "purl": wheel.purl,
        "hashes": _hashes(wheel.sha256),
        "externalReferences": [{"type": "distribution", "url": quote(wheel.filename)}],
    }


def _deb(deb: DebFact) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": deb.purl,
        "name": deb.name,
        "version": deb.version,
        "purl": deb.purl,
        "hashes": _hashes(deb.sha256),
    }


def _model(model: ModelFact) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{model.name}:{model.version}",
        "name": model.name,
        "version": model.version,
        "hashes": _hashes(model.digest),
        "properties": [_property("hash", "of the model's files and their names")],
    }
    component["properties"] += [_property("flavor", name) for name in sorted(model.flavors)]
    if params := model.signature.get("params"):
        component["properties"].append(_property("parameters", _compact(params)))
    sides = {
        side: [{"format": _compact(column)} for column in model.signature[side]]
        for side in ("inputs", "outputs")
        if model.signature.get(side)
    }
    if sides:
        component["modelCard"] = {"modelParameters": sides}
    return component


def _base(base: BaseFact) -> dict[str, Any]:
    return {
        "type": "container",
        "bom-ref": base.purl,
        "name": base.name,
        "version": base.digest,
        "purl": base.purl,
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
