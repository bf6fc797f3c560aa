"""The package archives that apt may use for a base image, as sources of our own.

The base's sources are read in both of apt's formats (`sources.list(5)`) and written anew with
what matters: where, which suites, which keys. An option that turns signature checks off is an
error, never obeyed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images.debian.rootfs import RootFilesystem, release_of

SOURCES_VARIABLE = "KFP_BENTO_DEBIAN_SOURCES"
_ONE_LINE = re.compile(r"deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*(.*)")
_KEPT = ("Check-Valid-Until", "Check-Date")
_UNSAFE = ("Trusted", "Allow-Insecure", "Allow-Weak", "Allow-Downgrade-To-Insecure")
_OWN_KEYRINGS = ("/usr/share/keyrings", "/etc/apt/trusted.gpg.d")
_ARCHIVE_KEYRING = re.compile(r"(debian|ubuntu)-archive-.*\.(gpg|pgp|asc)")


def apt_sources(facts: RootFilesystem, architecture: str, keyrings: Path) -> str:
    """Compose the sources that apt is to use.

    Args:
        facts: The base, whose own sources count unless `KFP_BENTO_DEBIAN_SOURCES` names a file.
        architecture: Such as `amd64`.
        keyrings: A directory to be made; what is in it is trusted where a source names no key.

    Returns:
        Sources in deb822 format.

    Raises:
        InvalidInput: The file that the variable names cannot be read or used.
        ImageError: The base has no usable source.
    """
    keyrings.mkdir()
    named = os.environ.get(SOURCES_VARIABLE, "")
    if named:
        texts = {named: _read(named)}
    else:
        texts = {
            name: text
            for name, text in facts.sources.items()
            if name.endswith((".list", ".sources"))
        }
    stanzas = []
    for name, text in texts.items():
        for source in _stanzas(text):
            if source.get("Enabled", "yes").lower() in {"no", "false", "0"}:
                continue
            if "deb" not in source.get("Types", "").split():
                continue
            wanted = source.get("Architectures", architecture).replace(",", " ").split()
            if architecture in wanted:
                stanzas.append(_written(source, name, facts, keyrings, trusted=bool(named)))
    if not stanzas:
        raise ImageError(
            f"The base ({release_of(facts)}) names no package archive for {architecture}.",
            hint=f"Let {SOURCES_VARIABLE} name a file with apt sources for it.",
        )
    _write_default_keys(facts, keyrings)
    return "\n".join(stanzas)


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"The file {name} cannot be read, which {SOURCES_VARIABLE} names: {error}.",
            hint="Let it name a file with lines of apt's sources.list, or unset it.",
        ) from error


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    if re.search(r"^Types:", text, re.MULTILINE | re.IGNORECASE):
        yield from _deb822(text)
        return
    for line in text.splitlines():
        if match := _ONE_LINE.fullmatch(line.partition("#")[0].strip()):
            options, uri, suite, components = match.groups()
            pairs = [item.partition("=")[::2] for item in (options or "").split()]
            yield {
                **{_option(key): value.replace(",", " ") for key, value in pairs},
                **{"Types": "deb", "URIs": uri, "Suites": suite, "Components": components},
            }


def _option(name: str) -> str:
    plain = {"arch": "Architectures", "signed-by": "Signed-By"}
    return plain.get(name.lower(), name.title())


def _deb822(text: str) -> Iterator[dict[str, str]]:
    plain = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n\s*\n", plain):
        found = re.findall(r"^([A-Za-z-]+):[ \t]*((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        if found:
            yield {_spelled(name): value.strip() for name, value in found}


def _spelled(name: str) -> str:
    return {"uris": "URIs"}.get(name.lower(), name.title())


def _written(
    source: Mapping[str, str], name: str, facts: RootFilesystem, keyrings: Path, *, trusted: bool
) -> str:
    unsafe = [key for key in _UNSAFE if source.get(key, "no").lower() not in {"no", "false", "0"}]
    if unsafe:
        raise InvalidInput(
            f"The apt source in {name} turns signature checks off ({unsafe[0]}).",
            hint=f"Let {SOURCES_VARIABLE} name a file with signed sources.",
        )
    uris = source.get("URIs", "").split()
    for uri in uris:
        # A base image does not get to read files of this machine.
        if not trusted and not re.match(r"(mirror\+)?https?://", uri):
            raise ImageError(
                f"The base's apt source '{uri.partition(':')[0]}:' in {name} cannot be used.",
                hint=f"Let {SOURCES_VARIABLE} name a file with sources that can be reached.",
            )
    lines = ["Types: deb", f"URIs: {' '.join(uris)}"]
    lines += [f"Suites: {source.get('Suites', '')}"]
    if components := source.get("Components", ""):
        lines.append(f"Components: {components}")
    lines += [f"{key}: {source[key]}" for key in _KEPT if key in source]
    if key := source.get("Signed-By", ""):
        lines.append(f"Signed-By: {_signed_by(key, facts, keyrings)}")
    return "\n".join(lines) + "\n"


def _signed_by(value: str, facts: RootFilesystem, keyrings: Path) -> str:
    """Give the same keys: those of the base as files of ours, an embedded one as it is."""
    if not value.startswith("/"):
        return value
    places = []
    for path in re.split(r"[,\s]+", value):
        if path in facts.keyrings:
            folder = keyrings.with_name("signed-by")
            folder.mkdir(exist_ok=True)
            place = folder / path.strip("/").replace("/", "-")
            place.write_bytes(facts.keyrings[path])
            places.append(str(place))
        else:
            places.append(path)
    return " ".join(places)


def _write_default_keys(facts: RootFilesystem, keyrings: Path) -> None:
    """Give what is trusted where a source names no key: the base's keys, else this machine's."""
    found = facts.keyrings or dict(_own_keyrings())
    for path, content in found.items():
        (keyrings / path.strip("/").replace("/", "-")).write_bytes(content)


def _own_keyrings() -> Iterable[tuple[str, bytes]]:
    for folder in map(Path, _OWN_KEYRINGS):
        for file in sorted(folder.glob("*-archive-*")):
            if _ARCHIVE_KEYRING.fullmatch(file.name) and file.is_file():
                yield str(file), file.read_bytes()
