"""The wheel of the kfp-bento that is running: of its source, or of its installed files."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.programs import run_uv

DISTRIBUTION = "kfp-bento"

# The package and its metadata; where the command lies depends on the installation.
_PARTS = "kfp_bento"
_SECONDS = 600.0
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
# What installers note about an installation, which is no part of the wheel.
_NOTES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"}


def own_wheel(folder: Path) -> Path:
    """Write the wheel of the kfp-bento that is running; same files, same bytes.

    Args:
        folder: Receives it, and is used for what is needed meanwhile.

    Raises:
        InvalidInput: Its source cannot be built, or its files are not known.
    """
    installed = _installation()
    source = _source_of(installed)
    files = _built(source, folder) if source else _installed(installed)
    stem = f"{installed.name.replace('-', '_')}-{installed.version}"
    path = folder / f"{stem}-py3-none-any.whl"
    _write(path, files, record=f"{stem}.dist-info/RECORD")
    return path


def _installation() -> Distribution:
    """Give what an installer has put here; a checkout's own metadata may come first on the path."""
    for found in Distribution.discover(name=DISTRIBUTION):
        if found.read_text("RECORD"):
            return found
    raise InvalidInput(
        "It is not recorded which files this kfp-bento consists of.",
        hint="Install it with pip or uv.",
    )


def _source_of(installed: Distribution) -> Path | None:
    """Give the checkout that an editable installation points to."""
    found = parse_json((installed.read_text("direct_url.json") or "{}").encode())
    if not found.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(str(found["url"])).path))


def _built(source: Path, folder: Path) -> Mapping[str, bytes]:
    out = folder / "built"
    # In the checkout's own build folder there may be modules that the source has no more.
    fresh = ("build", f"--build-base={folder / 'fresh'}")
    apart = [f"--config-setting=--global-option={one}" for one in fresh]
    done = run_uv(
        ["build", "--quiet", "--wheel", *apart, "--out-dir", str(out), str(source)],
        doing="Building the wheel of kfp-bento",
        directory=folder,
        seconds=_SECONDS,
        error=InvalidInput,
    )
    wheels = list(out.glob("*.whl"))
    if done.status or len(wheels) != 1:
        raise InvalidInput(
            f"The wheel of kfp-bento could not be built from {source}. uv says:\n"
            f"{done.last_lines()}",
            hint="Building takes setuptools from the package index.",
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


def _installed(installed: Distribution) -> Mapping[str, bytes]:
    """Give what was unpacked of the wheel; scripts and bytecode were made by the installer."""
    return {
        str(path): path.read_binary()
        for path in installed.files or ()
        if path.parts[0].startswith(_PARTS) and path.suffix != ".pyc"
    }


def _write(path: Path, files: Mapping[str, bytes], *, record: str) -> None:
    kept = {
        name: content
        for name, content in sorted(files.items())
        if not name.endswith("/") and not _is_note(name)
    }
    lines = [f"{name},{_digest(content)},{len(content)}\n" for name, content in kept.items()]
    kept[record] = "".join([*lines, f"{record},,\n"]).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in kept.items():
            entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, _MODE
            wheel.writestr(entry, content)


def _is_note(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parent.name.endswith(".dist-info") and path.name in _NOTES


def _digest(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"
