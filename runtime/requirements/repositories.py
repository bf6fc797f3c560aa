"""Repositories at a commit: cloned and made into a wheel here, where the user allows their code.

git gets no configuration, no helper and no other transport than the address has. The build runs
apart from that: confined, without network, credentials or variables, and what it needs (PEP 518)
is installed before, from wheels, by the same policy as any list of others.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name, parse_wheel_filename

from kfp_bento.runtime.files import file_sha256, parse_toml, read_small_file
from kfp_bento.runtime.programs import (
    NETWORK,
    Finished,
    account_for,
    clean_environment,
    code_variables,
    confined,
    confinement_hint,
    find_uv,
    memory_for_code,
    run_program,
    run_uv,
)
from kfp_bento.runtime.proxies import for_other_programs
from kfp_bento.runtime.requirements.addresses import NAMES_ONLY, Repository
from kfp_bento.runtime.requirements.direct_wheels import DirectWheel, check_metadata
from kfp_bento.runtime.requirements.lines import PUBLISH_INSTEAD, read_requirements, rendered

if TYPE_CHECKING:
    from kfp_bento.runtime.errors import KfpBentoError

_CLONE_SECONDS = 1800.0
_BUILD_SECONDS = 1800.0
_PROJECT_LIMIT = 1 << 20
_LEGACY = {"requires": ["setuptools>=40.8.0", "wheel"]}
"""What builds a project that does not say it (PEP 518)."""

_GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "LC_ALL": "C",
}


def build_wheel(
    repository: Repository, name: str, python: str, work: Path, error: type[KfpBentoError]
) -> DirectWheel:
    """Clone a repository and build the wheel of a package.

    Args:
        repository: Which, and at which commit.
        name: The package that it must be.
        python: Minor version of the interpreter that builds it.
        work: A scratch directory that is empty.
        error: What to raise.

    Raises:
        error: It cannot be cloned or built, is another package, or asks for addresses itself.
    """
    tree = work / "repository"
    time = clone(repository, tree, work, error)
    project = tree / repository.folder
    if not project.resolve().is_relative_to(tree.resolve()) or not project.is_dir():
        raise error(f"{repository.text} has no folder {repository.folder}.")
    environment = work / "environment"
    _install_backend(_backend(project, repository, error), environment, python, work, error)
    built = work / "built"
    built.mkdir()
    done = run_program(
        confined(
            [
                *(find_uv(error), "build", "--wheel", "--no-build-isolation", "--offline"),
                *("--no-config", "--no-sources", "--no-progress"),
                *("--python", str(environment / "bin" / "python"), "--out-dir", str(built)),
                str(project),
            ],
            error=error,
        ),
        doing=f"Building {name}",
        directory=work,
        environment=clean_environment(
            code_variables(),
            HOME=str(_folder(work / "home")),
            UV_CACHE_DIR=str(work / "cache"),
            UV_PYTHON_DOWNLOADS="never",
            # The time of the commit instead of today's: the same bytes tomorrow.
            SOURCE_DATE_EPOCH=time,
            PYTHONHASHSEED="0",
        ),
        seconds=_BUILD_SECONDS,
        memory=memory_for_code(),
        error=error,
        hint=PUBLISH_INSTEAD,
    )
    wheels = [file for file in built.glob("*.whl") if file.is_file() and not file.is_symlink()]
    if done.status or len(wheels) != 1:
        raise error(
            f"{repository.text} cannot be built into a wheel: {done.last_lines()}",
            hint=f"Its build has what its pyproject.toml requires. {confinement_hint()} "
            + PUBLISH_INSTEAD,
        )
    _check_name(wheels[0], name, repository, error)
    check_metadata(wheels[0], repository.text, error)
    return DirectWheel(repository, wheels[0], file_sha256(wheels[0]))


def clone(
    repository: Repository,
    tree: Path,
    work: Path,
    error: type[KfpBentoError],
    *,
    hint: str = PUBLISH_INSTEAD,
) -> str:
    """Give the working tree of the commit; the answer is the commit's time in seconds.

    Args:
        repository: Which, and at which commit.
        tree: Where it goes; not there yet.
        work: A scratch directory.
        error: What to raise.
        hint: What else the user can do.

    Raises:
        error: There is no git, or the commit cannot be had.
    """
    if shutil.which("git") is None:
        raise error(
            f"git is needed for {repository.text}, and is not installed.",
            hint="Install git, in a cluster as part of the runtime image: the base python:3.11 "
            f"has it, python:3.11-slim has not. {hint}",
        )
    url = repository.address.text.removeprefix("git+")
    home = _folder(work / "git-home")
    if account := account_for(repository.address.host):
        accounts = home / ".netrc"
        accounts.touch(0o600)
        host = repository.address.host
        accounts.write_text(f"machine {host} login {account[0]} password {account[1]}\n")
    inside = ("-C", str(tree))
    steps: Sequence[Sequence[str]] = (
        # Tags and history without files: versions are often made of them.
        ("clone", "--quiet", "--no-checkout", "--filter=blob:none", "--template=", url, str(tree)),
        (*inside, "fetch", "--quiet", "origin", repository.commit),
        (*inside, "checkout", "--quiet", "--detach", repository.commit),
        (*inside, "show", "--no-patch", "--format=%ct", repository.commit),
    )
    try:
        for step in steps:
            done = _git(step, repository, home, error, hint)
            # A commit that the clone has need not be given out by itself.
            if done.status and "fetch" not in step:
                raise error(
                    f"{repository.text} cannot be had: {done.last_lines(4)}",
                    hint="Correct address and commit; an account for the host belongs into a "
                    "netrc file.",
                )
        return done.output.strip()
    finally:
        shutil.rmtree(home)


def _git(
    arguments: Sequence[str],
    repository: Repository,
    home: Path,
    error: type[KfpBentoError],
    hint: str,
) -> Finished:
    scheme = repository.address.scheme.removeprefix("git+")
    settings = (
        *("protocol.allow=never", f"protocol.{scheme}.allow=always", "credential.helper="),
        *("http.followRedirects=initial", "core.hooksPath=/dev/null", "core.symlinks=true"),
        *("core.autocrlf=false", "core.fsmonitor=false", "submodule.recurse=false"),
    )
    return run_program(
        ["git", *(word for setting in settings for word in ("-c", setting)), *arguments],
        doing=f"Cloning {repository.text}",
        directory=home.parent,
        environment=clean_environment(
            *(NETWORK,),
            HOME=str(home),
            **for_other_programs([repository.address.text.removeprefix("git+")]),
            **_GIT,
            **_certificates(),
        ),
        seconds=_CLONE_SECONDS,
        error=error,
        hint=hint,
    )


def _certificates() -> Mapping[str, str]:
    """Give git the certificates that everything else here is told of by SSL_CERT_FILE."""
    named = clean_environment(("SSL_CERT_FILE",)).get("SSL_CERT_FILE")
    return {"GIT_SSL_CAINFO": named} if named else {}


def _backend(project: Path, repository: Repository, error: type[KfpBentoError]) -> list[str]:
    """Give what the project's build needs, each a requirement by name."""
    file = project / "pyproject.toml"
    try:
        document = parse_toml(read_small_file(file, _PROJECT_LIMIT)) if file.exists() else {}
        section = document.get("build-system", _LEGACY)
        needs = [str(line) for line in section["requires"]]
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        raise error(
            f"The pyproject.toml of {repository.text} does not say what its build needs.",
            hint=PUBLISH_INSTEAD,
        ) from None
    reading = read_requirements(
        needs, whose=f"the build of {repository.text}", error=error, sources=NAMES_ONLY
    )
    return [rendered(line) for line in reading.lines]


def _install_backend(
    needs: Sequence[str], environment: Path, python: str, work: Path, error: type[KfpBentoError]
) -> None:
    interpreter = f"{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = sys.executable if python == interpreter else python
    listed = work / "build-requirements.txt"
    listed.write_text("".join(f"{line}\n" for line in needs), encoding="ascii")
    steps = [["venv", "--quiet", "--no-project", "--python", wanted, str(environment)]]
    if needs:
        steps.append(
            [
                *("pip", "install", "--quiet", "--python", str(environment / "bin" / "python")),
                *("--only-binary", ":all:", "--requirement", str(listed)),
            ]
        )
    for step in steps:
        done = run_uv(
            step,
            doing="Installing what a build needs",
            directory=work,
            seconds=_BUILD_SECONDS,
            error=error,
            downloads=step[0] == "venv",
        )
        if done.status:
            raise error(
                f"What a build needs cannot be installed: {done.last_lines()}", hint=PUBLISH_INSTEAD
            )


def _check_name(wheel: Path, name: str, repository: Repository, error: type[KfpBentoError]) -> None:
    try:
        found = parse_wheel_filename(wheel.name)[0]
    except ValueError:
        found = canonicalize_name("")
    if found != canonicalize_name(name):
        raise error(
            f"{repository.text} is not the package {name}.",
            hint=f"Write {found} @ {repository.text}." if found else PUBLISH_INSTEAD,
        )


def _folder(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path
