"""Where a service of one's own is: source text, a path, an object, a repository at a commit.

Whichever door it comes through, what is built depends on the source alone.
"""

from __future__ import annotations

import ast
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kfp_bento.runtime.bentos.archive_reading import is_archive, unpack
from kfp_bento.runtime.bentos.bento_file import BENTO_FILE
from kfp_bento.runtime.errors import BentoError, InvalidInput, ModelError
from kfp_bento.runtime.files import open_plain_file, reading
from kfp_bento.runtime.models import model_files
from kfp_bento.runtime.requirements import clone, parse_repository
from kfp_bento.runtime.storage import local_path, open_place

LARGEST_SOURCE = 16 << 20
"""Bytes of a service that is one file."""

SERVICE_FILE = "service.py"
"""The name of a source that has none of its own."""

_FRAGMENT = re.compile(r"#((?:sha256|subdirectory)=[^#]*)$")
_SUM = re.compile(r"[0-9a-fA-F]{64}")
_FORMS = (
    "A service is a Python file, a directory, its source as text, an address (https://, s3://, "
    "minio://, file://) of a .py file or an archive, or "
    "git+https://host/repository@COMMIT#subdirectory=folder."
)
_WHAT_IT_IS = (
    "Give a Python file with a @bentoml.service class, or a directory with a bentofile.yaml, a "
    "pyproject.toml with [tool.bentoml.build], or a service.py; #subdirectory=folder says where "
    "in an archive or repository that is."
)
_COMMIT = (
    "Write git+https://host/repository@COMMIT#subdirectory=folder, with all 40 digits of the "
    "commit (git ls-remote shows them); accounts belong into a netrc file."
)


def fetched_service(location: str, work: Path) -> Path:
    """Give the file or the directory of a service.

    Args:
        location: Source text; the path or address of a .py file, an archive (tar, plain or
            compressed, or zip) or, on this machine, a directory; or
            `git+https://host/repository@<40 digits>`. Behind addresses `#sha256=…` is what the
            file's sum has to be, and `#subdirectory=…` where in an archive or repository the
            service is; `&` joins both.
        work: An existing scratch directory, which receives what is not on this machine.

    Raises:
        InvalidInput: It is none of these, or there is no service.
        BentoError: The repository or the archive cannot be had, or holds what is not to be used.
        StorageError: The object cannot be read, or has another sum.
    """
    if is_source(location):
        return _written(location, work)
    if location.startswith("git+"):
        return _of_repository(location, work)
    address, wanted = _parted(location)
    path = local_path(address)
    if path is None:
        return _of_object(address, wanted, work)
    if not path.exists():
        raise InvalidInput(f"There is no service at {path}.", hint=_FORMS)
    if not path.is_dir():
        return _of_object(address, wanted, work)
    if wanted.sha256:
        raise InvalidInput(
            f"{path} is a directory, which has no SHA-256 to compare.",
            hint="Leave #sha256=… out, or give an archive.",
        )
    return _service_in(_below(path, wanted.folder), location)


def given_service(location: str, artifact: Any) -> str:
    """Give where a service is that is named, or is an input artifact that may be left out.

    Args:
        location: See `fetched_service`; "" for none.
        artifact: Has the file or directory as `path`; None for none.

    Raises:
        InvalidInput: There are both.
    """
    if artifact is None:
        return location
    if location:
        raise InvalidInput(
            "A service is given twice, by its address and as an artifact.", hint="Give one of them."
        )
    return str(artifact.path)


def is_source(text: str) -> bool:
    """Say whether a text is a service's source, and not where it is."""
    return "\n" in text or "@bentoml.service" in text


def is_fixed(location: str, requests: Sequence[Any] = ()) -> bool:
    """Say whether a service, and what it is asked, is the same whenever it is fetched.

    Source text, a commit and a file whose sum is told are; what lies at an address may be another
    thing tomorrow.

    Args:
        location: See `fetched_service`; "" for none.
        requests: Requests, or addresses of files of them.
    """
    if any(isinstance(one, str) for one in requests):
        return False
    if not location or is_source(location) or location.startswith("git+"):
        return True
    return bool(_parted(location)[1].sha256)


def has_build_file(directory: Path) -> bool:
    """Say whether a directory has a file with BentoML's build options."""
    project = directory / "pyproject.toml"
    return (directory / "bentofile.yaml").is_file() or (
        project.is_file() and "[tool.bentoml.build" in project.read_text(encoding="utf-8")
    )


@dataclass(frozen=True)
class _Wanted:
    """What the fragment of an address says: a sum, a folder; "" for what it does not say."""

    sha256: str = ""
    folder: str = ""


def _parted(location: str) -> tuple[str, _Wanted]:
    """Give an address without its fragment, and what that says; other `#` belong to the name."""
    match = _FRAGMENT.search(location)
    if match is None:
        return location, _Wanted()
    said: Mapping[str, str] = dict(parse_qsl(match[1], keep_blank_values=True))
    sha256 = said.get("sha256", "")
    if said.keys() - {"sha256", "subdirectory"} or (sha256 and not _SUM.fullmatch(sha256)):
        raise InvalidInput(
            f"What stands behind # in the service's address is not understood: {match[1]}.",
            hint="Write #sha256=<64 digits>&subdirectory=<folder>, or one of both.",
        )
    return location[: match.start()], _Wanted(sha256, said.get("subdirectory", "").strip("/"))


def _written(source: str, work: Path) -> Path:
    """Write source text to a file, without the margin that a text inside of code has."""
    text = textwrap.dedent(source).strip("\n") + "\n"
    _require_python(text, "The service's source")
    folder = work / "fetched"
    folder.mkdir()
    (folder / SERVICE_FILE).write_text(text, encoding="utf-8")
    return folder / SERVICE_FILE


def _require_python(text: str, what: str) -> None:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        place = f" (line {line})" if line else ""
        said = getattr(error, "msg", "") or str(error) or type(error).__name__
        raise BentoError(
            f"{what} is no Python{place}: {said}.",
            hint="Commands of a notebook (% and !) do not belong into it. " + _FORMS,
        ) from None


def _of_repository(location: str, work: Path) -> Path:
    try:
        repository = parse_repository(location)
        if repository.address.has_account:
            raise ValueError("it has an account in its address")
    except ValueError as error:
        shown = location.rpartition("@")[0].rpartition("@")[2] or "git+…"
        raise InvalidInput(
            f"The service's repository {shown} cannot be used: {error}.", hint=_COMMIT
        ) from None
    tree = work / "fetched"
    scratch = work / "cloning"
    scratch.mkdir()
    clone(repository, tree, scratch, BentoError, hint=_COMMIT)
    shutil.rmtree(tree / ".git")
    service = _service_in(_below(tree, repository.folder), location)
    try:
        model_files(service, leave_out=frozenset())
    except ModelError as error:
        what = error.message.replace("The model directory", f"The service in {repository.text}")
        raise BentoError(what, hint="Put plain files there, and no links to elsewhere.") from None
    return service


def _of_object(address: str, wanted: _Wanted, work: Path) -> Path:
    """Give a service that is one file, or an archive's tree."""
    folder = work / "fetched"
    folder.mkdir()
    name = PurePosixPath(urlsplit(address).path if "://" in address else address).name
    file = folder / (name or "service")
    open_place(address).read(file, sha256=wanted.sha256)
    with reading(f"The service at {_shown(address)} cannot be read", BentoError, hint=_FORMS):
        if is_archive(file):
            tree = work / "unpacked"
            tree.mkdir()
            unpack(file, tree)
            return _service_in(_below(tree, wanted.folder), address, one_folder=not wanted.folder)
        with open_plain_file(file) as stream:
            text = stream.read(LARGEST_SOURCE + 1)
    if wanted.folder:
        raise InvalidInput(
            f"The service at {_shown(address)} is one file, without a folder {wanted.folder}.",
            hint="Leave #subdirectory=… out, or give an archive.",
        )
    if file.suffix == ".py":  # what is wrong with it BentoML says, with the line
        return file
    _require_python(_decoded(text, address), f"The service at {_shown(address)}")
    return file.rename(folder / SERVICE_FILE)


def _decoded(text: bytes, address: str) -> str:
    if len(text) <= LARGEST_SOURCE:
        try:
            return text.decode()
        except ValueError:
            pass
    raise BentoError(
        f"The service at {_shown(address)} is neither Python nor an archive that is known.",
        hint="Known are tar, tar.gz, tar.xz, tar.bz2 and zip. " + _FORMS,
    )


def _below(tree: Path, folder: str) -> Path:
    """Give a folder of a tree.

    Raises:
        InvalidInput: There is none, or it leads out.
    """
    found = (tree / folder).resolve()
    if not found.is_relative_to(tree.resolve()) or not found.is_dir():
        raise InvalidInput(
            f"The service's source has no folder {folder}.",
            hint="Correct #subdirectory=…, a path from the top of the archive or repository.",
        )
    return found


def _service_in(directory: Path, location: str, *, one_folder: bool = False) -> Path:
    """Give the directory with a service: itself, or the only folder of an archive.

    Raises:
        InvalidInput: There is none.
    """
    inside = list(directory.iterdir())
    if one_folder and len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink():
        directory = inside[0]
    if has_build_file(directory) or (directory / SERVICE_FILE).is_file():
        return directory
    if (directory / BENTO_FILE).is_file():
        raise InvalidInput(
            f"{_shown(location)} is a bento, and no service's source.",
            hint="Take it in as it is: kfp-bento bento import.",
        )
    raise InvalidInput(f"{_shown(location)} holds no BentoML service.", hint=_WHAT_IT_IS)


def _shown(location: str) -> str:
    """Give a location for people: without a query, which signs a presigned address."""
    return location.partition("#")[0].partition("?")[0]
