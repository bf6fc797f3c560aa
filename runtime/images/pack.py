"""An image of a locked Python environment: what a pipeline's steps run in.

The same builder as for bentos, without a bento: a base, the locked wheels, above them, where they
change most often, wheels of one's own, and what makes all of it an environment.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.files import file_sha256
from kfp_bento.runtime.images.assembly.assembly import Assembly
from kfp_bento.runtime.images.assembly.context import BuildContext, open_destination
from kfp_bento.runtime.images.assembly.libraries import system_layer
from kfp_bento.runtime.images.assembly.options import DEFAULTS, ImageOptions
from kfp_bento.runtime.images.assembly.spec import ImageSpec, glibc_label, titles
from kfp_bento.runtime.images.oci.blobs import scratch_directory
from kfp_bento.runtime.images.oci.config import STEP, ImageConfig, check_layer_count
from kfp_bento.runtime.images.oci.image import Image, parse_platform
from kfp_bento.runtime.images.oci.tar import source_date_epoch
from kfp_bento.runtime.images.python.groups import dependency_groups, own_wheels
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.requirements import variables_in
from kfp_bento.runtime.programs import NETWORK, clean_environment, confined, run_program

_BUILD_SECONDS = 3600.0
_PIP = ("PIP_*", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "NETRC")
_COMPILING = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "PKG_CONFIG_PATH")
# What pip itself takes accounts from.
_PIPS_FILES = (".netrc", "pip")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def pack_image(
    requirements: Path,
    destination: str,
    options: ImageOptions = DEFAULTS,
    *,
    name: str,
    version: str,
    python: str,
    wheels: Sequence[Path] = (),
    built_here: Sequence[str] = (),
    progress: Callable[[str], None] = lambda sentence: None,
) -> Image:
    """Build an image of a Python environment, for the steps of pipelines.

    Containers find `python3` on their path and start without an entrypoint, as user 1034 or
    whichever user they are given.

    Args:
        requirements: A list with a hash for every requirement (`uv pip compile
            --generate-hashes`).
        destination: `oci:DIR`, `docker-archive:FILE` or `host[:port]/path[:tag]`.
        options: The base, the image's names, and how it is built.
        name: What the image is called.
        version: Its version, and its tag unless one is given.
        python: Minor version of Python: `3.11`.
        wheels: Wheels of one's own, in a layer of their own above all others.
        built_here: Names of distributions that have no wheel, whose wheels pip is to build first.
            That runs their build code, which may reach the network, and its result depends on
            the build tools of the day. They go into the same layer.
        progress: Called with a short sentence at each step.

    Raises:
        InvalidInput: A parameter cannot be used.
        ImageError: A dependency cannot be installed, the base does not fit, the destination is
            taken or the disk is full.
        RegistryError: A registry refused or failed.
    """
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(scratch_directory("kfp-bento-pack-"))
        lock, sources = _divided(
            Lock(requirements, requirements.parent, python), built_here, scratch
        )
        platform = parse_platform(options.platform)
        place = stack.enter_context(open_destination(name, version, destination, options, progress))
        context = place.context(python, platform, options)
        if sources is not None:
            progress(f"building wheels: {', '.join(built_here)}")
            wheels = (*wheels, *_wheels_of(sources, scratch / "built"))
        locks = [lock, *([_own_lock(wheels, python, scratch)] if wheels else [])]
        return _assembled(context, name, version, locks, options.system_packages).carry_out()


def _assembled(
    context: BuildContext,
    name: str,
    version: str,
    locks: Sequence[Lock],
    packages: Sequence[str],
) -> Assembly:
    base, builder, platform = context.base, context.builder, context.platform
    chosen = [context.select(lock) for lock in locks]
    found = [(lock, wheels) for lock, (wheels, _) in zip(locks, chosen, strict=True)]
    at = base.interpreter
    locked = dependency_groups(locks[0], platform, interpreter=at, wheels=found[0][1])
    # What makes it an environment stays on top: no wheel puts anything in its place.
    groups = [
        *locked[:-1],
        *(
            group
            for lock, own in found[1:]
            for group in own_wheels(lock, platform, interpreter=at, wheels=own)
        ),
        locked[-1],
    ]
    check_layer_count(len(base.layers) + len(groups))
    system = system_layer(packages, found, context.dependency_recipes(groups), context)
    named = titles(name, version)
    every = tuple(wheel for wheels, _ in chosen for wheel in wheels)
    spec = ImageSpec(
        name=name,
        version=version,
        repository=context.place.repository,
        asked=context.asked,
        base=base,
        config=ImageConfig(
            platform=platform,
            interpreter=base.interpreter,
            epoch=builder.epoch,
            profile=STEP,
            labels={**named, **glibc_label(every), **system.label},
            annotations=named,
        ),
        recipes=system.recipes,
        compression=builder.codec.name,
        wheels=every,
        debs=system.packages,
    )
    kept = {key: facts for _, kept in chosen for key, facts in kept.items()}
    return Assembly(spec, context, kept={**context.seen, **kept, **system.kept}, notes=system.notes)


def _divided(lock: Lock, names: Sequence[str], scratch: Path) -> tuple[Lock, Path | None]:
    """Give the lock without the named distributions, and a list of these."""
    if not names:
        return lock, None
    wanted = {canonicalize_name(name) for name in names}
    rest, sources = [], {}
    for line in lock.lines():
        found = _REQUIREMENT.match(line)
        name = canonicalize_name(found[0]) if found else ""
        if name in wanted:
            sources[name] = line
        else:
            rest.append(line)
    if missing := sorted(wanted - sources.keys()):
        raise InvalidInput(f"{lock.file.name} does not list {', '.join(missing)}.")
    shorter, listed = scratch / "requirements.txt", scratch / "sources.txt"
    shorter.write_text("\n".join(rest) + "\n")
    listed.write_text("\n".join(sources.values()) + "\n")
    return Lock(shorter, lock.folder, lock.python), listed


def _wheels_of(sources: Path, folder: Path) -> list[Path]:
    """Build wheels with pip; their files' times are those of every wheel built so."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    # Without PEP 517 an older pip wants the build tools in its own environment.
    command += [
        "--use-pep517",
        "--no-deps",
        "--require-hashes",
        "-r",
        str(sources),
        "-w",
        str(folder),
    ]
    done = run_program(
        confined(command, error=ImageError, network=True, readable=_PIPS_FILES),
        doing="Building wheels with pip",
        directory=folder.parent,
        environment=clean_environment(
            NETWORK,
            _PIP,
            _COMPILING,
            variables_in(sources.read_text()),
            SOURCE_DATE_EPOCH=str(source_date_epoch()),
        ),
        seconds=_BUILD_SECONDS,
        error=ImageError,
    )
    if done.status:
        raise ImageError(
            f"A wheel could not be built. pip says:\n{done.last_lines()}",
            hint="Build the wheel yourself and give it with --wheel.",
        )
    return sorted(folder.iterdir())


def _own_lock(wheels: Sequence[Path], python: str, scratch: Path) -> Lock:
    """Give a lock of wheel files."""
    folder = scratch / "own"
    (folder / "wheels").mkdir(parents=True)
    lines = [_linked(wheel, folder / "wheels") for wheel in wheels]
    lock = folder / "requirements.txt"
    lock.write_text("\n".join(sorted(lines)) + "\n")
    return Lock(lock, folder, python)


def _linked(wheel: Path, folder: Path) -> str:
    try:
        parse_wheel_filename(wheel.name)
        digest = file_sha256(wheel)
    except (InvalidWheelFilename, OSError) as error:
        raise InvalidInput(
            f"{wheel} is no wheel that can be read.",
            hint="Build one with `uv build --wheel` or `python -m build --wheel`.",
        ) from error
    (folder / wheel.name).symlink_to(os.path.abspath(wheel))  # noqa: PTH100 - links stay links
    return f"./wheels/{wheel.name} --hash=sha256:{digest}"
