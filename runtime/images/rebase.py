"""Another base below an image that kfp-bento built, without its bento and without a build.

Layers are independent of what lies below them, so the own ones stay as they are and only the
configuration is composed anew, as a build on the new base would compose it: the same digest
comes out. Where a build might come out otherwise, this refuses.
"""

from __future__ import annotations

import datetime
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.version import InvalidVersion, Version

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images.assembly.recipes import BUILDER_FORMAT
from kfp_bento.runtime.images.attestations.attachments import (
    attach,
    documents_of,
    provenance_document,
    sbom_document,
)
from kfp_bento.runtime.images.attestations.provenance import (
    ImageRebase,
    invocation_id,
    rebase_provenance,
)
from kfp_bento.runtime.images.attestations.sbom import SBOM_TYPE, sbom_on_base
from kfp_bento.runtime.images.base.base_image import BaseImage, open_base
from kfp_bento.runtime.images.base.host import TITLE as HOST_TITLE
from kfp_bento.runtime.images.copy import copy_referrers, repository_of
from kfp_bento.runtime.images.oci.blobs import BlobDirectory, storage_errors
from kfp_bento.runtime.images.oci.config import (
    INTERPRETER,
    OWN_ENVIRONMENT,
    PROFILE,
    PROFILES,
    SERVICE,
    Profile,
    config_descriptor,
    image_config,
    image_manifest,
)
from kfp_bento.runtime.images.oci.image import (
    Descriptor,
    Document,
    ImageSink,
    Layer,
    one_line,
    parse_platform,
)
from kfp_bento.runtime.images.oci.layers import codec_named
from kfp_bento.runtime.images.oci.reference import (
    ImageReference,
    Reference,
    check_tag,
    parse_destination,
    parse_source,
)
from kfp_bento.runtime.images.oci.transfer import BlobUpload, Transfer, put_blobs, transfers_to_dict
from kfp_bento.runtime.images.places.destination import check_destination, location, open_sink
from kfp_bento.runtime.images.places.open import (
    OpenedImage,
    ReferrerSource,
    check_texts,
    open_image,
    well_formed,
)

_ANNOTATION = "org.opencontainers.image"
_BASE_DIGEST = f"{_ANNOTATION}.base.digest"
_OWN_LABELS = (f"{_ANNOTATION}.title", f"{_ANNOTATION}.version", _BASE_DIGEST)
_HISTORY = "kfp-bento: "
_KINDS = {
    "dependencies (": "dependencies",
    "large dependencies (": "dependencies",
    "own wheels (": "dependencies",
    "model ": "model",
    "source of ": "source",
}
_MINOR = re.compile(r"python(3\.\d+)")
# How Docker's Debian images begin, and all that are made from them.
_DEBIAN = re.compile(r"debian\.sh\b.* '(?P<suite>[a-z]+)' '@\d+'")
_REBUILD = "Build the image again from its bento, with the new base."


@dataclass(frozen=True)
class RebasedImage:
    """An image that has been put on another base.

    Attributes:
        image: What was read, with its digest.
        base: The new base, with its digest.
        location: Where to read the result: ``oci:DIR``, ``docker-archive:FILE``, ``docker://…``.
        digest: Digest of the result's manifest.
        tag: The tag that points to it.
        changed: False when it stood on this base already, or the destination held the result.
        transfers: What became of each blob; empty when there was nothing to do.
        referrers: Digests of the manifests that were attached: bill of materials, provenance.
        missing: Why a bill of materials, or both, is not among them; empty if they are.
    """

    image: str
    base: str
    location: str
    digest: str
    tag: str
    changed: bool
    transfers: tuple[Transfer, ...]
    referrers: tuple[str, ...] = ()
    missing: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        facts = {name: value for name, value in vars(self).items() if name != "transfers"}
        listed = {"referrers": list(self.referrers)}
        return {**facts, **listed, **transfers_to_dict(self.transfers)}


@dataclass(frozen=True)
class _Parts:
    """What an image of ours is made of, read from the image alone.

    Attributes:
        below: The layers of its base.
        own: The layers above it.
        labels: The labels and the annotations that the build gave it, those of the base left out.
        annotations: The latter.
        environment: The bento's own variables, in their order.
        interpreter: The Python of the base that the virtual environment links to.
        epoch: Seconds since 1970 of every timestamp in it.
        profile: What a container started from it is given.
    """

    below: tuple[Layer, ...]
    own: tuple[Layer, ...]
    labels: dict[str, str]
    annotations: dict[str, str]
    environment: dict[str, str]
    interpreter: str
    epoch: int
    profile: Profile

    @property
    def python(self) -> str:
        """Minor version of the interpreter."""
        found = _MINOR.fullmatch(PurePosixPath(self.interpreter).name)
        if found is None:
            shown = one_line(self.interpreter)
            raise ImageError(f"The image's Python is '{shown}', which has no version.")
        return found[1]


def rebase_image(
    image: str,
    base: str,
    *,
    destination: str = "",
    tag: str = "",
    platform: str = "",
    progress: Callable[[str], None] | None = None,
) -> RebasedImage:
    """Puts an image that kfp-bento built on another base image.

    The result gets documents of its own: the bill of materials of the old image with the new base
    in it, and a provenance statement that names the old image and the new base. What else refers
    to the old image, such as signatures, speaks of the old base and does not come along.

    Args:
        image: A registry reference, ``oci:DIR[:TAG]`` or ``docker-archive:FILE[:TAG]``.
        base: The new base, in the same forms, or ``host``.
        destination: Where the result goes; the image's own place, where its tag moves, if empty.
        tag: The tag; that of the destination, or the image's own, if empty.
        platform: Which image of a multi-platform index; then a destination or tag is needed.
        progress: Called with a short sentence at each step.

    Returns:
        The result, and what became of each blob.

    Raises:
        InvalidInput: A parameter cannot be used.
        ImageError: kfp-bento did not build the image, or it needs a build: another Python or
            platform, or Debian packages whose release is not certain to be the new base's.
        RegistryError: A registry refused or failed.
    """
    tell = progress or (lambda sentence: None)
    tell(f"reading {image}")
    opened = open_image(image, parse_platform(platform) if platform else None)
    target = _target(image, destination, tag, opened)
    tag = check_tag(tag or target.tag or opened.tag or "latest")
    with well_formed(opened.title):
        parts = _take_apart(opened)
    check_destination(target)
    with storage_errors(tempfile.gettempdir()):
        scratch = tempfile.TemporaryDirectory(prefix="kfp-bento-rebase-")
    with scratch as folder:
        workspace = BlobDirectory(Path(folder))
        found = open_base(
            base,
            parts.python,
            opened.platform,
            workspace=workspace,
            codec=codec_named("zstd"),
            cache=None,
            epoch=parts.epoch,
            progress=tell,
        )
        _check_fit(opened, parts, found)
        # A digest says what to read, not what its tag stands for by now.
        in_place = not destination and tag == opened.tag and "@" not in image
        rebase = _Rebase((image, base), opened, parts, found, target, tag, workspace, tell)
        if in_place and _stands_on(parts, found):
            tell(f"{opened.title} stands on {found.title} already")
            return rebase.result(opened.descriptor, changed=False)
        return rebase.carry_out()


def _target(image: str, destination: str, tag: str, opened: OpenedImage) -> ImageReference:
    if destination:
        return parse_destination(destination)
    where = parse_source(image)
    if opened.from_index and not tag:
        raise InvalidInput(
            f"{image} names images for several platforms; a rebase would leave one in their place.",
            hint="Say where the result goes (--to) or which tag it gets (--tag).",
        )
    if isinstance(where, Reference):
        if where.digest and not where.tag and not tag:
            raise InvalidInput(
                f"{image} names a digest, which always stands for the same image.",
                hint="Say where the result goes (--to) or which tag it gets (--tag).",
            )
        return replace(where, digest="")
    return where


@dataclass(frozen=True)
class _Attached:
    """What refers to the result, and what became of its blobs where they were copied."""

    referrers: tuple[str, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class _Rebase:
    """A rebase that has been found possible.

    Attributes:
        asked: The image and the new base as they were asked for.
        opened: The image.
        parts: What it is made of.
        base: The new base.
        target: Where the result goes.
        tag: Its tag.
        workspace: Where new blobs are written.
        tell: Told what is going on.
    """

    asked: tuple[str, str]
    opened: OpenedImage
    parts: _Parts
    base: BaseImage
    target: ImageReference
    tag: str
    workspace: BlobDirectory
    tell: Callable[[str], None]

    def carry_out(self) -> RebasedImage:
        """Writes configuration, manifest and documents, and moves the tag at last."""
        parts, base = self.parts, self.base
        layers = (*base.layers, *parts.own)
        content = image_config(
            base.config,
            layers,
            self.opened.platform,
            environment=parts.environment,
            labels=_on_base(parts.labels, base),
            interpreter=base.interpreter,
            epoch=parts.epoch,
            profile=parts.profile,
        )
        config = config_descriptor(content)
        self.workspace.put_bytes(content, config.media_type)
        manifest, text = image_manifest(config, layers, _on_base(parts.annotations, base))
        loads = [BlobUpload(layer.title, layer.descriptor, base.blobs) for layer in base.layers]
        loads += [
            BlobUpload(layer.title, layer.descriptor, self.opened.blobs) for layer in parts.own
        ]
        loads.append(BlobUpload("configuration", config, self.workspace))
        with open_sink(self.target, repository_of(self.opened)) as sink:
            transfers = put_blobs(sink, loads, self.tell)
            sink.put_manifest(manifest, text)
            attached = self._attach(sink, manifest)
            changed = sink.tag(manifest, text, self.tag)
        return self.result(manifest, changed=changed, transfers=transfers, attached=attached)

    def result(
        self,
        manifest: Descriptor,
        *,
        changed: bool,
        transfers: tuple[Transfer, ...] = (),
        attached: _Attached = _Attached(),
    ) -> RebasedImage:
        return RebasedImage(
            image=self.opened.title,
            base=self.base.title,
            location=location(self.target),
            digest=manifest.digest,
            tag=self.tag,
            changed=changed,
            transfers=(*transfers, *attached.transfers),
            referrers=attached.referrers,
            missing=attached.missing,
        )

    def _attach(self, sink: ImageSink, manifest: Descriptor) -> _Attached:
        """Attaches the documents, so that no image is ever seen without them."""
        if not sink.carries_referrers:
            missing = "an archive carries no bill of materials and no provenance"
            self.tell(missing)
            return _Attached(missing=missing)
        if manifest.digest == self.opened.descriptor.digest:
            # It stood on this base: all that was said of it stays true, signatures as well.
            return _Attached(*copy_referrers(self.opened, sink, self.tell))
        bills, missing = self._bills()
        if missing:
            self.tell(f"no bill of materials: {missing}")
        documents = [*bills, self._statement(manifest)]
        attached = attach(sink, self.workspace, manifest, documents)
        return _Attached(tuple(item.digest for item in attached), missing=missing)

    def _bills(self) -> tuple[list[Document], str]:
        """The image's bill of materials with the new base, or why there is none."""
        if not isinstance(self.opened.blobs, ReferrerSource):
            return [], f"{self.asked[0]} is in an archive, which carries none"
        found = documents_of(self.opened, SBOM_TYPE)
        if not found:
            return [], f"none is attached to {self.opened.title}"
        # Those that different versions of kfp-bento wrote are the same again now.
        moved = dict.fromkeys(sbom_on_base(content, self.base) for content in found)
        bills = [sbom_document(content) for content in moved if content is not None]
        if not bills:
            return [], f"that of {self.opened.title} is not as this version of kfp-bento writes it"
        return bills, ""

    def _statement(self, manifest: Descriptor) -> Document:
        image, base = self.asked
        target, own = self.target, repository_of(self.opened)
        rebase = ImageRebase(
            repository=target.name if isinstance(target, Reference) else own,
            digest=manifest.digest,
            image=image,
            image_digest=self.opened.descriptor.digest,
            base=base,
            base_digest=self.base.digest,
            platform=self.opened.platform,
            format=str(BUILDER_FORMAT),
            invocation=invocation_id(os.environ),
        )
        return provenance_document(rebase_provenance(rebase))


def _on_base(names: Mapping[str, str], base: BaseImage) -> dict[str, str]:
    kept = {name: value for name, value in names.items() if name != _BASE_DIGEST}
    return {**kept, _BASE_DIGEST: base.digest} if base.digest else kept


def _stands_on(parts: _Parts, base: BaseImage) -> bool:
    same = [layer.diff_id for layer in parts.below] == [layer.diff_id for layer in base.layers]
    return same and parts.labels.get(_BASE_DIGEST, "") == base.digest


def _take_apart(image: OpenedImage) -> _Parts:
    inside = image.config.get("config") or {}
    labels = {str(name): str(value) for name, value in (inside.get("Labels") or {}).items()}
    profile = _profile(image, labels)
    below, own = _split(image, profile)
    missing = [name for name in (INTERPRETER, OWN_ENVIRONMENT) if name not in labels]
    if missing:
        raise ImageError(
            f"{image.title} does not say how it was put together: it has no label {missing[0]}.",
            hint=_REBUILD,
        )
    values = dict(pair.partition("=")[::2] for pair in inside.get("Env") or ())
    names = [name for name in labels[OWN_ENVIRONMENT].split(",") if name]
    if not values.keys() >= set(names):
        raise ImageError(
            f"{image.title} lacks variables that its label {OWN_ENVIRONMENT} names.", hint=_REBUILD
        )
    annotations = dict(image.manifest.get("annotations") or {})
    check_texts("its 'annotations'", annotations.values())
    mine = {
        name: value
        for name, value in labels.items()
        if name in annotations or name in _OWN_LABELS or name.startswith("kfp-bento.")
    }
    return _Parts(
        below=below,
        own=own,
        labels=mine,
        # An archive has no annotations: those that every build gives are labels too.
        annotations=annotations or {name: mine[name] for name in _OWN_LABELS if name in mine},
        environment={name: values[name] for name in names},
        interpreter=labels[INTERPRETER],
        epoch=_epoch(image),
        profile=profile,
    )


def _profile(image: OpenedImage, labels: Mapping[str, str]) -> Profile:
    name = labels.get(PROFILE, SERVICE.name)
    if name not in PROFILES:
        raise ImageError(
            f"{image.title} has the profile '{one_line(name)}', which this version of kfp-bento "
            f"does not know; it knows {', '.join(PROFILES)}.",
            hint="Use the version of kfp-bento that built the image, or a later one.",
        )
    return PROFILES[name]


def _split(image: OpenedImage, profile: Profile) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers of the base and those above it, by their annotations or else the history."""
    layers = image.layers
    if all(layer.kind == "base" for layer in layers):
        layers = _named_by_history(image)
    count = next((n for n, layer in enumerate(layers) if layer.kind != "base"), len(layers))
    below, own = layers[:count], layers[count:]
    kinds = [layer.kind for layer in own]
    if not own:
        raise ImageError(
            f"{image.title} was not built by kfp-bento: no layer of it says what it holds.",
            hint="Only such images can be put on another base.",
        )
    if "base" in kinds or not _as_built(kinds, profile):
        raise ImageError(
            f"{image.title} has been changed since kfp-bento built it: its layers are "
            f"{', '.join(layer.kind for layer in layers)}.",
            hint=_REBUILD,
        )
    return below, own


def _as_built(kinds: Sequence[str], profile: Profile) -> bool:
    """Whether layers of these kinds are what a build puts on a base."""
    if profile is SERVICE:
        return kinds.count("source") == 1 and kinds[-1] == "source"
    return set(kinds) <= {"system", "dependencies"} and kinds[-1] == "dependencies"


def _named_by_history(image: OpenedImage) -> tuple[Layer, ...]:
    """The layers by what the history says of each, for an image without annotations."""
    history = [x for x in image.config.get("history") or () if not x.get("empty_layer")]
    if len(history) != len(image.layers):
        return image.layers
    return tuple(
        _named(layer, str(entry.get("created_by", "")))
        for layer, entry in zip(image.layers, history, strict=True)
    )


def _named(layer: Layer, made_by: str) -> Layer:
    if not made_by.startswith(_HISTORY) or made_by == f"{_HISTORY}{HOST_TITLE}":
        return layer
    title = made_by.removeprefix(_HISTORY)
    # What is not known by its title is taken for the kind that is hardest to move.
    kind = next((kind for start, kind in _KINDS.items() if title.startswith(start)), "system")
    return replace(layer, kind="dependencies" if _is_wheel(title) else kind, title=title)


def _is_wheel(title: str) -> bool:
    """Whether a layer's title is that of a single wheel: ``torch 2.4.0``."""
    name, _, version = title.partition(" ")
    try:
        Version(version)
    except InvalidVersion:
        return False
    return bool(name)


def _epoch(image: OpenedImage) -> int:
    text = str(image.config.get("created", ""))
    try:
        moment = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError as error:
        raise ImageError(
            f"{image.title} has no creation time as kfp-bento writes it ('{one_line(text)}').",
            hint=_REBUILD,
        ) from error
    return int(moment.replace(tzinfo=datetime.UTC).timestamp())


def _check_fit(image: OpenedImage, parts: _Parts, base: BaseImage) -> None:
    """Refuses a base on which the image's layers would not work as they are.

    The Python version and the platform have been compared when the base was opened.
    """
    if base.interpreter != parts.interpreter:
        raise ImageError(
            f"The base {base.title} has its Python at {base.interpreter}, but {image.title} "
            f"links to {parts.interpreter}.",
            hint=f"Choose a base of the same kind. {_REBUILD}",
        )
    if not any(layer.kind == "system" for layer in parts.own):
        return
    before, after = (_debian_release(config) for config in (image.config, base.config))
    if not before or before != after:
        raise ImageError(
            f"{image.title} holds Debian packages, which fit one release of Debian only; the old "
            f"base is {_said(before)}, and the new one, {base.title}, is {_said(after)}.",
            hint=_REBUILD,
        )


def _debian_release(config: Mapping[str, Any]) -> str:
    """The release that Docker's Debian images note in their history; empty if there is none."""
    for entry in config.get("history") or ():
        if found := _DEBIAN.search(str(entry.get("created_by", ""))):
            return found["suite"]
    return ""


def _said(release: str) -> str:
    return f"Debian {release}" if release else "of a release that its history does not tell"
