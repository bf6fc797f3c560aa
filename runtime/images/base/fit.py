"""Whether what is put onto a base will start there, seen from the files in its layers.

A base's configuration says little, and that not reliably: `PYTHON_VERSION` is often set by hand.
An image whose base lacks the interpreter, its dynamic loader, or what the entrypoint is run with
would be complete and never start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.base.base_image import HOST, BaseImage
from kfp_bento.runtime.images.debian import Userland
from kfp_bento.runtime.images.oci.config import DEFAULT_PATH


def fitting_base(
    base: BaseImage, userland: Userland, python: str, *, needs: tuple[str, ...] = ()
) -> BaseImage:
    """Give a base with the interpreter, C library and shared libraries that it really has.

    Args:
        base: The base, with the interpreter that its configuration suggests.
        userland: What its layers hold.
        python: Minor version of Python that is needed, such as `3.11`.
        needs: Programs that must be on its path, to be found by `/usr/bin/env`.

    Raises:
        ImageError: It has no such Python, or one that cannot load wheels for glibc, or lacks a
            program. All reasons are listed.
    """
    if base.title == HOST:
        return base  # made of what runs here, bash and all
    search = _search_path(base)
    found = userland.find(f"python{python}", f"{base.interpreter.rpartition('/')[0]}:{search}")
    reasons = list(_reasons(userland, python, found, needs, search))
    if reasons:
        raise ImageError(
            f"The base image {base.title} ({userland.distribution}) cannot start what is put onto "
            "it:\n" + "\n".join(f"- {reason}" for reason in reasons),
            hint=_way_out(userland, python, found),
        )
    libraries = userland.libraries_on(_variables(base).get("LD_LIBRARY_PATH", ""))
    # Set by hand, and not after the interpreter that is there.
    wrong = not f"{base.python}.".startswith(f"{python}.")
    return replace(
        base,
        interpreter=found,
        python="" if wrong else base.python,
        glibc=userland.glibc,
        libraries=libraries,
    )


def _search_path(base: BaseImage) -> str:
    return _variables(base).get("PATH") or DEFAULT_PATH


def _variables(base: BaseImage) -> dict[str, str]:
    listed = (base.config.get("config") or {}).get("Env") or ()
    return dict(pair.partition("=")[::2] for pair in listed)


def _reasons(
    userland: Userland, python: str, found: str, needs: tuple[str, ...], search: str
) -> Iterator[str]:
    loader = userland.loader(found) if found else ""
    if not found:
        others = ", ".join(userland.pythons)
        yield f"no python{python} on its path ({search})" + (
            f"; there is {others}" if others else " and no other Python"
        )
    elif "musl" in loader:
        yield f"{found} is built for musl ({loader}), and wheels of linux are for glibc"
    elif loader and not userland.has(loader):
        yield f"{found} asks for the dynamic loader {loader}, which is not there"
    if needs and not userland.has("/usr/bin/env"):
        yield "no /usr/bin/env, which the entrypoint is run with"
    for name in needs:
        if not userland.find(name, search):
            yield f"no {name} on its path, which its containers are started with"


def _way_out(userland: Userland, python: str, found: str) -> str:
    ways = [f"Choose a base made for this, such as python:{python}-slim."]
    versions = {path.rpartition("python")[2] for path in userland.pythons} - {python}
    if not found and versions:
        said = " or ".join(sorted(versions))
        ways.append(f"Or build the bento again for Python {said}.")
    elif found:
        ways.append("Or add what is missing to the base, once.")
    return " ".join(ways)
