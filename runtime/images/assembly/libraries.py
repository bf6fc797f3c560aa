"""Debian packages between a base and its wheels: those asked for, and those that wheels need.

Wheels look for shared libraries that they do not bring. What a base made from Debian lacks of them
is added; another base is refused by the names of what is missing, since the image would be
complete and never start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kfp_bento.runtime.bentos import DEBIAN_PACKAGE
from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.assembly.context import BuildContext, recalled
from kfp_bento.runtime.images.assembly.recipes import Recipe, system_recipe
from kfp_bento.runtime.images.cache.records import Records
from kfp_bento.runtime.images.debian import (
    DebianPackage,
    RootFilesystem,
    package_named_after,
    packages_with,
    release_of,
    resolve_packages,
)
from kfp_bento.runtime.images.oci.config import NEEDED_LIBRARIES
from kfp_bento.runtime.images.oci.keys import key_of
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.needs import (
    GLIBC_NAME,
    WheelNeeds,
    is_compiled,
    lacking,
    needed_of_base,
    read_needs,
)
from kfp_bento.runtime.images.python.selection import Wheel

# What facts about a wheel call what it looks for.
_NEEDS = "needs"
_WAY_OUT = (
    "Choose a base that has them, or one made from Debian, which gets them by itself; or lock "
    "wheels that bring them."
)
_NAME_PACKAGES = "Name the packages that have them: --system-package NAME, for each."

_SHOWN = 3

Chosen = Sequence[tuple[Lock, Sequence[Wheel]]]
"""Wheels, with the lock that they were chosen for."""


@dataclass(frozen=True)
class SystemLayer:
    """What lies between the base and the wheels.

    Attributes:
        recipes: The layer, where anything is to be added, and those of the wheels above it, with
            what is known of the wheels.
        packages: Which packages.
        kept: What to remember for the next build, by key.
        notes: What else there is to know, for people.
        expected: Libraries that the base has to have.
    """

    recipes: tuple[Recipe, ...] = ()
    packages: tuple[DebianPackage, ...] = ()
    kept: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    expected: frozenset[str] = frozenset()

    @property
    def label(self) -> dict[str, str]:
        """What an image says about the base that it needs, for whoever puts it onto another."""
        return {NEEDED_LIBRARIES: " ".join(sorted(self.expected))} if self.expected else {}


def system_layer(
    asked: Sequence[str],
    chosen: Chosen,
    recipes: Sequence[Recipe],
    context: BuildContext,
    *,
    reading: bool = True,
    own_folders: bool = False,
) -> SystemLayer:
    """Decide on the Debian packages of an image.

    Args:
        asked: Packages that were asked for, with or without `=version`.
        chosen: The image's wheels.
        recipes: The layers of these.
        context: The base, and what is known from earlier builds.
        reading: Whether wheels that nobody has looked into may be downloaded for it.
        own_folders: Whether the image says itself where libraries are (`LD_LIBRARY_PATH`); what
            is missing then is said, and no reason to refuse it.

    Raises:
        ImageError: A library is missing that cannot be added, or a package cannot be had.
        InvalidInput: A package has no valid name.
    """
    wheels = {wheel.sha256: wheel for _, some in chosen for wheel in some if is_compiled(wheel)}
    found, notes = _needs(wheels, chosen, recipes, context, reading=reading)
    facts = {sha256: {_NEEDS: needs.to_dict()} for sha256, needs in found.items()}
    above = tuple(recipe.knowing(facts) for recipe in recipes)
    needs = {f"{wheels[one].name} {wheels[one].version}": found[one] for one in found}
    missing = lacking(needs, context.base.libraries)
    if missing.optional:
        notes = (
            *notes,
            "some modules of wheels cannot be loaded on this base, which matters only to a service "
            f"that uses them: {'; '.join(missing.optional)}",
        )
    needed = {
        library: wheels
        for library, wheels in missing.needed.items()
        if package_named_after(library) not in {name.partition("=")[0] for name in asked}
    }
    if needed and own_folders:
        notes = (*notes, f"not in the base: {_listed(needed, '; ')}")
        needed = {}
    expected = needed_of_base(needs.values()) - missing.needed.keys()
    known = SystemLayer(above, notes=notes, expected=expected)
    return _added(asked, needed, context, known) if needed or asked else known


def _added(
    asked: Sequence[str],
    needed: Mapping[str, tuple[str, ...]],
    context: BuildContext,
    known: SystemLayer,
) -> SystemLayer:
    facts, remembered = context.base_facts()
    found, looked_up = _packages_for(needed, facts, context) if needed else ({}, {})
    unknown = {library: needed[library] for library in needed if library not in found}
    if unknown and not asked:
        raise _refused(unknown, context, f"No package of {release_of(facts)} has them.")
    notes = known.notes
    if unknown:
        notes = (*notes, f"taken to be in the packages asked for: {', '.join(unknown)}")
    for library, package in found.items():
        context.builder.tell(
            f"{package} is added for {library}, which {_few(needed[library])} needs"
        )
    names = tuple(dict.fromkeys((*asked, *found.values())))
    packages = resolve_packages(names, facts, context.platform, context.builder.tell)
    kept = {**remembered, **looked_up}
    if not packages.packages:
        return replace(known, kept=kept, notes=notes)
    recipe = system_recipe(packages, facts, context.base, context.builder)
    layers = (recipe, *known.recipes)
    return SystemLayer(layers, packages.packages, kept, notes, known.expected)


def _packages_for(
    needed: Mapping[str, tuple[str, ...]], facts: RootFilesystem, context: BuildContext
) -> tuple[dict[str, str], Mapping[str, Any]]:
    """Give the package that has each library, as far as one has; and what to remember of it.

    Raises:
        ImageError: The base is no Debian, or its archive cannot be looked into.
    """
    if not facts.is_debian:
        raise _refused(needed, context)
    asked = {
        "kind": "packages-of-libraries",
        "release": release_of(facts),
        "architecture": context.platform.architecture,
        "libraries": sorted(needed),
    }

    def found(data: Any) -> dict[str, str] | None:
        names = {str(library): str(package) for library, package in dict(data).items()}
        valid = all(map(DEBIAN_PACKAGE.fullmatch, names.values()))
        return names if valid and names.keys() == needed.keys() else None

    if known := recalled(context.records, key_of(asked), found):
        return known, {}
    try:
        packages = packages_with(needed, facts, context.platform.architecture, context.builder.tell)
    except ImageError as error:
        raise _refused(needed, context, error.message, error.hint) from error
    # What no package has today, one may have once its archive is among the base's sources.
    return packages, {key_of(asked): packages} if packages.keys() == needed.keys() else {}


def _refused(
    needed: Mapping[str, tuple[str, ...]],
    context: BuildContext,
    why: str = "",
    hint: str | None = "",
) -> ImageError:
    return ImageError(
        f"The base image {context.base.title} lacks shared libraries without which wheels are of "
        f"no use:\n- " + _listed(needed, "\n- ") + (f"\n{why}" if why else ""),
        hint=hint or (f"{_NAME_PACKAGES} {_WAY_OUT}" if why else _WAY_OUT),
    )


def _listed(needed: Mapping[str, tuple[str, ...]], separator: str) -> str:
    return separator.join(
        f"{library}, which {_few(wheels)} need{'s' * (len(wheels) == 1)}"
        for library, wheels in needed.items()
    )


def _few(wheels: Sequence[str]) -> str:
    more = f" and {len(wheels) - _SHOWN} more" if len(wheels) > _SHOWN else ""
    return ", ".join(wheels[:_SHOWN]) + more


def _needs(
    wheels: Mapping[str, Wheel],
    chosen: Chosen,
    recipes: Sequence[Recipe],
    context: BuildContext,
    *,
    reading: bool,
) -> tuple[dict[str, WheelNeeds], tuple[str, ...]]:
    """Say what the wheels look for, by their SHA-256; and notes.

    The record of a layer says it of the wheels in it, so that known layers need not be fetched.
    """
    if not wheels or GLIBC_NAME not in context.base.libraries:
        return {}, ()
    found = _known_here(wheels, context.builder.cache)
    if len(found) < len(wheels):
        found = {**_recorded(wheels, context.wheel_facts(recipes)), **found}
    left = len(wheels) - len(found)
    if left and not reading:
        note = f"which shared libraries {left} wheels look for is seen when they are fetched"
        return found, (note,)
    return {**found, **(_read(chosen, found, context) if left else {})}, ()


def _recorded(wheels: Mapping[str, Wheel], facts: Mapping[str, Any]) -> dict[str, WheelNeeds]:
    """Read what records of layers say, whoever wrote them."""
    found = {}
    for sha256 in wheels:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            found[sha256] = WheelNeeds.from_dict(facts[sha256][_NEEDS])
    return found


def _read(
    chosen: Chosen, known: Mapping[str, WheelNeeds], context: BuildContext
) -> dict[str, WheelNeeds]:
    """Look into the wheels that nobody has looked into; the cache of this machine keeps each."""
    context.builder.tell("looking which shared libraries the wheels need")
    found: dict[str, WheelNeeds] = {}
    for lock, wheels in chosen:
        left = [one for one in wheels if is_compiled(one) and one.sha256 not in known]
        scratch, spare = context.builder.workspace.root, context.builder.spare
        found |= read_needs(left, lock, context.platform, scratch, spare)
    if cache := context.builder.cache:
        with contextlib.suppress(ImageError):  # without a record they are read again
            for sha256, needs in found.items():
                cache.keep_facts(_key(sha256), needs.to_dict())
    return found


def _known_here(wheels: Mapping[str, Wheel], cache: Records | None) -> dict[str, WheelNeeds]:
    places = [cache] if cache is not None else []
    known = {one: recalled(places, _key(one), WheelNeeds.from_dict) for one in wheels}
    return {sha256: needs for sha256, needs in known.items() if needs is not None}


def _key(sha256: str) -> str:
    return key_of({"kind": "needs-of-wheel", "wheel": sha256})
