"""What is signed: cosign's "simple signing" payload, and the statement in Sigstore's bundles.

Both name the image by the digest of its manifest. A payload lies in a layer of the manifest that
the tag `sha256-<hex>.sig` names, its signature in an annotation. A bundle refers to the image.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.oci.config import canonical_json, descriptor_of
from kfp_bento.runtime.images.oci.image import OCI_CONFIG, OCI_MANIFEST, Descriptor
from kfp_bento.runtime.images.signatures.keys import PublicKey, SigningKey

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

_CLAIM = "cosign container image signature"
_STATEMENT_TYPE = "application/vnd.in-toto+json"
_PREDICATE = "https://sigstore.dev/cosign/sign/v1"


@dataclass(frozen=True)
class Claim:
    """A signature and what it was made of.

    Attributes:
        signature: The signature.
        signed: The bytes that were signed.
        digests: The images that they speak of.
        identity: The repository that they name, in the older form alone.
    """

    signature: bytes
    signed: bytes
    digests: tuple[str, ...]
    identity: str = ""

    def is_by(self, keys: Sequence[PublicKey]) -> PublicKey | None:
        """Give the key among these that the signature was made with."""
        return next((key for key in keys if key.verifies(self.signature, self.signed)), None)


def payload_for(digest: str, identity: str) -> bytes:
    """Compose what is signed for an image in a repository."""
    critical = {
        "identity": {"docker-reference": identity},
        "image": {"docker-manifest-digest": digest},
        "type": _CLAIM,
    }
    return canonical_json({"critical": critical, "optional": None})


def signed_layer(payload: bytes, key: SigningKey) -> dict[str, Any]:
    """Give the descriptor of a payload with its signature, as the manifest lists it."""
    signature = base64.b64encode(key.sign(payload)).decode()
    described = descriptor_of(payload, PAYLOAD_TYPE).to_dict()
    return {**described, "annotations": {SIGNATURE: signature}}


def manifest_of(layers: Sequence[dict[str, Any]]) -> tuple[Descriptor, bytes, bytes]:
    """Compose the manifest of all signatures of an image.

    Returns:
        Its descriptor, its bytes and those of its configuration, which is there since registries
        and clients expect an image's.
    """
    config = canonical_json(
        {
            "architecture": "",
            "config": {},
            "created": "0001-01-01T00:00:00Z",
            "history": [],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
    )
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor_of(config, OCI_CONFIG).to_dict(),
        "layers": list(layers),
    }
    content = canonical_json(document)
    return descriptor_of(content, OCI_MANIFEST), content, config


def claim_of_payload(layer: dict[str, Any], payload: bytes) -> Claim | None:
    """Read a payload; None if it is none that cosign would take."""
    try:
        signature = _decoded(layer["annotations"][SIGNATURE])
        critical = parse_json(payload)["critical"]
        if critical["type"] != _CLAIM:
            return None
        digest = critical["image"]["docker-manifest-digest"]
        identity = critical.get("identity") or {}
        return Claim(signature, payload, (str(digest),), str(identity.get("docker-reference", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def claims_of_bundle(content: bytes) -> tuple[Claim, ...]:
    """Read the signatures of a bundle: none if it attests something else than being signed."""
    try:
        envelope = parse_json(content)["dsseEnvelope"]
        body, kind = _decoded(envelope["payload"]), str(envelope["payloadType"])
        statement = parse_json(body)
        if kind != _STATEMENT_TYPE or statement["predicateType"] != _PREDICATE:
            return ()
        digests = tuple(f"sha256:{item['digest']['sha256']}" for item in statement["subject"])
        signatures = [_decoded(item["sig"]) for item in envelope["signatures"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()
    # The pre-authentication encoding of DSSE.
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(body), body)
    return tuple(Claim(signature, signed, digests) for signature in signatures)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
