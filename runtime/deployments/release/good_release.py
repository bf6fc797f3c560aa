"""A release that was good, packed into an annotation, and what of it is believed when read back.

Whoever may edit the holder may write the annotation. So it holds no manifests but what they were
rendered from: the target, the image, the facts of the bento and the options, as a user writes
them. To restore them is to render them again, which every refusal of the options stands before;
what is applied then is what the target renders for this very release, and nothing else can be
said. What options can ask for is another image and what the pods may use: a shared key
(`KFP_BENTO_RECORD_KEY`) seals records as our own, and one without a seal brings no Secret, account,
token or power over its node that the live release does not have.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime import files
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts
from kfp_bento.runtime.deployments.targets.marks import LAST_GOOD, PROMOTION
from kfp_bento.runtime.deployments.targets.release import Release
from kfp_bento.runtime.deployments.targets.targets import target_of
from kfp_bento.runtime.errors import DeploymentError, InvalidInput, KfpBentoError
from kfp_bento.runtime.programs import cleaned

# All annotations of an object together may have 256 KiB, and there are three such records.
LARGEST_RECORD = 80_000

_PURPOSE, _NOTE = "release", "promotion"
_SEAL = " sealed "
_REVISION = re.compile(r"[0-9a-f]{16}")
_LONGEST_FACT = 1024
# Where the manifests of all targets name a Secret: by itself, or by a reference that has its name.
_SECRET_NAMES = ("secretName", "dockerConfigJsonSecretName")
_SECRET_REFERENCES = ("secretKeyRef", "secretRef")


@dataclass(frozen=True)
class GoodRelease:
    """A release that was ready once.

    Attributes:
        revision: The revision that was applied.
        image: Its image.
        bento: Tag of its bento.
        release: The release, rendered anew; None when it was too large to keep. A later
            kfp-bento may render it otherwise: then its revision is another one.
        sealed: Whether the shared key says that the record is our own.
    """

    revision: str
    image: str = ""
    bento: str = ""
    release: Release | None = None
    sealed: bool = False

    def is_at(self, revision: str) -> bool:
        """Say whether this is the release of a revision, as it was applied or as it is now."""
        return revision == self.revision or (
            self.release is not None and revision == self.release.revision
        )

    def check_gains(self, live: Sequence[Manifest]) -> None:
        """Refuse a release without a seal whose pods may use what live objects do not.

        Raises:
            DeploymentError: It brings a Secret, an account, a token or a power, by its name.
        """
        if self.sealed or self.release is None:
            return
        powers = self.release.target.powers
        if gains := sorted(set(_used(self.release.manifests, powers)) - set(_used(live, powers))):
            raise DeploymentError(
                f"The good release of {self.release.primary} on record (revision {self.revision}) "
                f"is not believed: it brings {', '.join(gains)}, which the live release does not "
                "have, and no seal says that the record is ours.",
                hint=f"Deploy image {self.image} again with its options; with "
                f"{files.KEY_VARIABLE} set, records are sealed and go back by themselves.",
            )


def encode_good(release: Release) -> str:
    """Pack a release into the text of an annotation, sealed where there is a shared key.

    More than `LARGEST_RECORD` characters are not kept: then only revision, image and bento are.
    """
    facts = {"revision": release.revision, "image": release.image, "tag": release.bento_tag}
    made_of = {
        "target": release.target.kind,
        "bento": release.bento.to_dict() if release.bento else None,
        "options": release.options,
    }
    packed = pack({**facts, **made_of}) or pack(facts)
    sealed = files.seal(_sealed(release.primary, packed), _PURPOSE, _shared_key())
    return f"{packed}.{sealed}" if sealed else packed


def believed(text: str, primary: ObjectRef, annotation: str = LAST_GOOD) -> GoodRelease:
    """Give the release that an annotation holds, if it is one of this primary object.

    Args:
        text: The annotation's value.
        primary: The primary object of the release that it was found on.
        annotation: Its name, for error messages.

    Raises:
        DeploymentError: It cannot be read; it is not sealed where a shared key is set; it is of
            another release; or it has an option that its target refuses, by the option's name.
    """
    key = _shared_key()
    packed, _, found = text.partition(".")
    if key and not files.is_sealed(_sealed(primary, packed), _PURPOSE, found, key):
        raise DeploymentError(
            f"The annotation {annotation} of {primary} is not believed: it has no seal of the key "
            f"in {files.KEY_VARIABLE}.",
            hint="It was written without that key, or by somebody else. Deploy the release that "
            "you want: once it serves, it is recorded with a seal.",
        )
    try:
        told = unpack(packed)
        good = GoodRelease(
            revision=_fact(told, "revision", _REVISION),
            image=_fact(told, "image"),
            bento=_fact(told, "tag"),
            release=_rendered(told, primary),
            sealed=bool(key),
        )
    except InvalidInput as refused:
        raise DeploymentError(
            f"The annotation {annotation} of {primary} is not believed, as kfp-bento would never "
            f"have written it: {cleaned(refused.message)[:_LONGEST_FACT]}",
            hint="Find out who wrote it, and remove it; then deploy the release that you want.",
        ) from None
    except (binascii.Error, zlib.error, ValueError) as error:
        raise DeploymentError(
            f"The annotation {annotation} of {primary} is not believed, as it cannot be read: "
            f"{cleaned(str(error))[:_LONGEST_FACT]}.",
            hint="Deploy the release that you want: once it serves, it is recorded anew.",
        ) from error
    return good


def sealed_note(note: str, primary: ObjectRef) -> str:
    """Give the text of a note on a release, sealed where there is a shared key; "" for none."""
    found = files.seal(_sealed(primary, note), _NOTE, _shared_key()) if note else ""
    return f"{note}{_SEAL}{found}" if found else note


def opened_note(text: str, primary: ObjectRef) -> str:
    """Give the note that `sealed_note` has sealed.

    Raises:
        DeploymentError: It has no seal of the shared key, where there is one.
    """
    key = _shared_key()
    note, _, found = text.rpartition(_SEAL) if _SEAL in text else (text, "", "")
    if key and not files.is_sealed(_sealed(primary, note), _NOTE, found, key):
        raise DeploymentError(
            f"The annotation {PROMOTION} of {primary} is not believed: it has no seal of the key "
            f"in {files.KEY_VARIABLE}.",
            hint="It was written without that key, or by somebody else: find out who wrote it, "
            "and remove it.",
        )
    return note


def _rendered(told: Mapping[str, Any], primary: ObjectRef) -> Release | None:
    """Render what a record says again.

    Raises:
        InvalidInput: The target refuses it, or it becomes another release.
        ValueError: It is of another form.
    """
    if told.keys() == {"revision", "image", "tag"}:
        return None
    if "manifests" in told:
        raise ValueError("an earlier version of kfp-bento has recorded manifests")
    if not isinstance(told.get("target"), str) or not isinstance(told.get("options"), dict):
        raise ValueError("it names no target and its options")
    bento = None if told.get("bento") is None else BentoFacts.from_dict(told["bento"])
    release = target_of(told["target"]).render_again(_fact(told, "image"), bento, told["options"])
    if release.primary != primary:
        raise InvalidInput(f"It is of {release.primary}.")
    return release


def _used(value: Any, powers: frozenset[str]) -> Iterator[str]:
    """Give the Secrets, accounts, tokens and powers that pods of some objects have."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _SECRET_NAMES:
                yield f"Secret {inner}"
            elif key in _SECRET_REFERENCES and isinstance(inner, Mapping):
                yield f"Secret {inner.get('name')}"
            elif key == "imagePullSecrets" and isinstance(inner, list):
                yield from (f"Secret {one.get('name')}" for one in inner if isinstance(one, dict))
            elif key == "serviceAccountName":
                yield f"ServiceAccount {inner}"
            elif key == "automountServiceAccountToken" and inner:
                yield "a token of the Kubernetes API"
            elif key in powers:
                yield f"{key}={inner}"
            yield from _used(inner, powers)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _used(inner, powers)


def unpack(packed: str) -> dict[str, Any]:
    """Give what `pack` has packed.

    Raises:
        ValueError: It is nothing of the kind, or too large; zlib.error and binascii.Error likewise.
    """
    if len(packed) > LARGEST_RECORD:
        raise ValueError(f"it is larger than {LARGEST_RECORD} characters")
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(base64.b64decode(packed, validate=True), files.JSON_LIMIT)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"it is cut, or unpacks to more than {files.JSON_LIMIT} bytes")
    return files.parse_json(raw)


def _fact(told: Mapping[str, Any], name: str, form: re.Pattern[str] | None = None) -> str:
    value = told.get(name, "")
    if not isinstance(value, str) or len(value) > _LONGEST_FACT or not value.isprintable():
        raise ValueError(f"its {name} is no such text")
    if form is not None and not form.fullmatch(value):
        raise ValueError(f"its {name} is none")
    return value


def pack(value: Any) -> str:
    """Give the packed text; empty where it is too large to be read back."""
    # In the order of the user: it decides in what order some options are rendered.
    text = json.dumps(value, separators=(",", ":"), default=dict).encode()
    packed = base64.b64encode(zlib.compress(text, 9)).decode()
    return packed if len(text) < files.JSON_LIMIT and len(packed) <= LARGEST_RECORD else ""


def _sealed(primary: ObjectRef, packed: str) -> bytes:
    # A record of one release is none of another.
    return f"{primary}\n{packed}".encode()


def _shared_key() -> bytes | None:
    try:
        return files.shared_key()
    except ValueError as error:
        raise KfpBentoError(
            f"{error}.", hint="Give every step the same long random text, from a Secret."
        ) from None
