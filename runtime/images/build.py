"""From a bento directory to an image: base, dependencies, one layer per model, source."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.base_image import BaseImage, choose_base, open_base
from kfp_bento.runtime.images.blobs import BlobDirectory, storage_errors
from kfp_bento.runtime.images.cache import KeptBlobs, LayerCache
from kfp_bento.runtime.images.config import (
    BENTO_PATH,
    BENTOML_DIRECTORIES,
    HOME,
    USER_ID,
    config_descriptor,
    image_config,
    image_manifest,
)
from kfp_bento.runtime.images.environment import dependency_layers
from kfp_bento.runtime.images.image import (
    BlobSource,
    Image,
    ImageSink,
    Layer,
    Platform,
    parse_platform,
)
from kfp_bento.runtime.images.layers import Codec, codec_named, write_layer
from kfp_bento.runtime.images.layout import LayoutSink, check_replaceable, layout_sink
from kfp_bento.runtime.images.qualify import Wishes, qualify
from kfp_bento.runtime.images.reference import (
    LayoutReference,
    Reference,
    check_tag,
    parse_destination,
)
from kfp_bento.runtime.images.registry import Repository
from kfp_bento.runtime.images.tar import (
    TarEntry,
    directory_entry,
    source_date_epoch,
    walk_tree,
)
from kfp_bento.runtime.images.wheels import Lock

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

# Says where a bento came from (run ids, addresses), which is not part of what it is.
RECORD_NAME = ".kfp-bento.json"
CACHE_VARIABLE = "KFP_BENTO_CACHE"
_ENTRYPOINT = "env/docker/entrypoint.sh"
_ANNOTATION = "org.opencontainers.image"


@dataclass(frozen=True)
class _Job:
    """What every step of one build needs to know."""

    bento: Bento
    wishes: Wishes
    platform: Platform
    codec: Codec
    epoch: int
    cache: LayerCache | None
    workspace: BlobDirectory
    progress: Callable[[str], None]


def build_image(
    bento: Bento,
    destination: str,
    *,
    base: str = "",
    repository: str = "",
    tag: str = "",
    platform: str = "",
    cache: Path | None = None,
    compression: str = "zstd",
    progress: Callable[[str], None] | None = None,
) -> Image:
    """Builds an OCI image from a bento and writes it to a directory or a registry.

    Neither Docker nor root nor a daemon takes part, and nothing of the bento is executed. The
    same bento, base and options give the same digest on any machine and any day.

    Args:
        bento: The bento; its directory holds the models.
        destination: ``oci:DIR`` for an OCI layout directory, or ``host[:port]/path[:tag]``.
        base: ``host``, ``oci:DIR[:TAG]`` or a registry reference. Empty: what `choose_base` says.
        repository: The repository the image is to be known by when it goes to a directory;
            ``localhost/<bento name>`` if empty.
        tag: The tag; the bento's version if neither this nor the destination says one.
        platform: ``linux/amd64`` or ``linux/arm64``; this machine's if empty.
        cache: A directory where costly layers are kept between builds; ``$KFP_BENTO_CACHE`` if
            none is given, and none if that is not set.
        compression: ``zstd``, ``gzip`` or ``none``; models are never compressed.
        progress: Called with a short sentence at each step.

    Returns:
        The image, by digest.

    Raises:
        InvalidInput: A parameter cannot be used.
        ImageError: The bento needs a builder that runs commands, a dependency cannot be
            installed, the base does not fit, the destination is taken or the disk is full.
        RegistryError: A registry refused or failed.
    """
    target = parse_destination(destination)
    tag = check_tag(tag or target.tag or bento.version)
    wishes = qualify(bento.directory)
    if not bento.python_version:
        raise ImageError(
            f"The bento {bento.name} does not say which Python it needs.",
            hint="Build it again with python_version set.",
        )
    if isinstance(target, LayoutReference):
        check_replaceable(target.directory)
    tell = progress or (lambda sentence: None)
    with _open_sink(target) as (sink, workspace):
        job = _Job(
            bento=bento,
            wishes=wishes,
            platform=parse_platform(platform),
            codec=codec_named(compression),
            epoch=source_date_epoch(),
            cache=_layer_cache(cache),
            workspace=workspace,
            progress=tell,
        )
        found = _open_base(job, base)
        layers = (*found.layers, *_own_layers(job, found))
        digest, changed = _write(job, found, layers, sink, tag)
    tell(f"{'wrote' if changed else 'already there:'} {destination} as {digest}")
    return Image(
        repository=_repository(target, repository, bento),
        digest=digest,
        tags=(tag,),
        base=found.title,
        location=f"oci:{target.directory}"
        if isinstance(target, LayoutReference)
        else f"docker://{target.name}",
        layers=layers,
        platform=str(job.platform),
        reused=not changed,
    )


@contextlib.contextmanager
def _open_sink(target: Reference | LayoutReference) -> Iterator[tuple[ImageSink, BlobDirectory]]:
    """The sink, and a place for new blobs: that of the layout itself where there is one."""
    if isinstance(target, LayoutReference):
        with layout_sink(target.directory) as layout:
            yield layout, layout.blobs
        return
    with storage_errors(tempfile.gettempdir()):
        scratch = tempfile.TemporaryDirectory(prefix="kfp-bento-image-")
    with scratch as folder:
        yield Repository(target), BlobDirectory(Path(folder))


def _layer_cache(directory: Path | None) -> LayerCache | None:
    named = os.environ.get(CACHE_VARIABLE, "")
    chosen = directory or (Path(named) if named else None)
    return LayerCache(chosen) if chosen else None


def _open_base(job: _Job, wanted: str) -> BaseImage:
    python = job.bento.python_version
    # Never the builder's own machine unless it was asked for: this may be a pod.
    text = choose_base(python, wanted=wanted or job.wishes.base, allow_host=False)
    job.progress(f"base image: {text}")
    return open_base(
        text,
        python,
        job.platform,
        workspace=job.workspace,
        codec=job.codec,
        cache=job.cache,
        epoch=job.epoch,
        progress=job.progress,
    )


def _own_layers(job: _Job, base: BaseImage) -> Iterator[Layer]:
    """The layers above the base, from the one that changes least to the one that changes most."""
    yield from dependency_layers(
        Lock(
            job.wishes.requirements, _install_folder(job.bento.directory), job.bento.python_version
        ),
        job.workspace,
        job.codec,
        platform=job.platform,
        interpreter=base.interpreter,
        epoch=job.epoch,
        cache=job.cache,
        progress=job.progress,
    )
    models = _model_folders(job.bento.directory)
    for model in models:
        name = f"{model.parent.name}:{model.name}"
        job.progress(f"packing model {name}")
        yield write_layer(
            model_entries(job.bento.directory, model),
            job.workspace,
            codec_named("none"),
            kind="model",
            title=f"model {name}",
            epoch=job.epoch,
        )
    job.progress("packing the source")
    yield write_layer(
        source_entries(job.bento.directory, models),
        job.workspace,
        job.codec,
        kind="source",
        title=f"source of {job.bento.name}",
        epoch=job.epoch,
    )


def model_entries(bento: Path, model: Path) -> Iterator[TarEntry]:
    """The members of one model's layer, below ``/home/bentoml/bento/models``."""
    place = BENTO_PATH.lstrip("/")
    inside = model.relative_to(bento)
    yield from _homes()
    yield directory_entry(f"{place}/models", USER_ID)
    yield directory_entry(f"{place}/models/{inside.parts[1]}", USER_ID)
    yield from walk_tree(
        model, f"{place}/{inside.as_posix()}", owner=USER_ID, boundary=bento, skip=_is_noise
    )


def source_entries(bento: Path, models: list[Path]) -> Iterator[TarEntry]:
    """The members of the last layer: the bento without its models, and BentoML's directories."""
    elsewhere = {model.relative_to(bento).as_posix() for model in models}
    place = BENTO_PATH.lstrip("/")
    yield from list(_homes())[:1]
    for name in BENTOML_DIRECTORIES:
        yield directory_entry(f"{HOME.lstrip('/')}/{name}", USER_ID)
    for entry in walk_tree(
        bento, place, owner=USER_ID, skip=lambda path: path in elsewhere or _is_noise(path)
    ):
        if entry.path == f"{place}/{_ENTRYPOINT}":
            # BentoML leaves this to a `chmod +x` in its Dockerfile.
            yield replace(entry, mode=0o755)
        else:
            yield entry


def _homes() -> Iterator[TarEntry]:
    yield directory_entry(HOME.lstrip("/"), USER_ID)
    yield directory_entry(BENTO_PATH.lstrip("/"), USER_ID)


def _is_noise(path: str) -> bool:
    return path == RECORD_NAME or path.rpartition("/")[2] == "__pycache__"


def _model_folders(bento: Path) -> list[Path]:
    return sorted(
        path
        for path in (bento / "models").glob("*/*")
        if path.is_dir() and not path.is_symlink() and not path.parent.is_symlink()
    )


def _install_folder(bento: Path) -> Path:
    """Where BentoML starts the installer, so that ``./wheels/…`` means the same."""
    return bento / "src" if (bento / "src").is_dir() else bento / "env" / "python"


def _write(
    job: _Job, base: BaseImage, layers: tuple[Layer, ...], sink: ImageSink, tag: str
) -> tuple[str, bool]:
    """Hands everything to the sink, the manifest last; returns its digest and whether it is new."""
    names = {f"{_ANNOTATION}.title": job.bento.name, f"{_ANNOTATION}.version": job.bento.version}
    if base.digest:  # and not base.name: one base under two names gives one image
        names[f"{_ANNOTATION}.base.digest"] = base.digest
    content = image_config(
        base.config,
        layers,
        job.platform,
        environment=job.wishes.environment,
        labels=names,
        epoch=job.epoch,
    )
    config = config_descriptor(content)
    job.workspace.put_bytes(content, config.media_type)
    below: BlobSource = base.blobs
    if job.cache is not None and isinstance(sink, LayoutSink):
        below = KeptBlobs(base.blobs, job.cache.blobs)
    for layer in layers:
        job.progress(f"storing {layer.title} ({layer.size / 1e6:.1f} MB)")
        sink.put_blob(layer.descriptor, below if layer.kind == "base" else job.workspace)
    sink.put_blob(config, job.workspace)
    manifest, text = image_manifest(config, layers, names)
    sink.put_manifest(manifest, text)
    return manifest.digest, sink.tag(manifest, text, tag)


def _repository(target: Reference | LayoutReference, wanted: str, bento: Bento) -> str:
    if isinstance(target, Reference):
        return target.name
    return wanted or f"localhost/{bento.name}"
