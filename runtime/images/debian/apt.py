"""apt in a directory of its own, where it sees a base image and nothing of this machine.

It has the packages, sources, pins and keyrings of the base. It needs no privilege and installs
nothing.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.debian.rootfs import RootFilesystem
from kfp_bento.runtime.images.debian.sources import SOURCES_VARIABLE, apt_sources
from kfp_bento.runtime.images.oci.blobs import scratch_directory, storage_errors
from kfp_bento.runtime.programs import clean_environment, cleaned, run_program
from kfp_bento.runtime.proxies import for_other_programs

_PROXIES = (
    *("http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY"),
)
_ADDRESS = re.compile(r"https?://\S+")
_SECONDS = 1800.0
_WAY_OUT = "Use a base image that has what the bento needs, or let the cluster build the bento."


@contextlib.contextmanager
def apt_root(
    facts: RootFilesystem, architecture: str, settings: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """Give a directory in which apt sees a base, for as long as the block lasts.

    Args:
        facts: What the base is made of.
        architecture: The processor in dpkg's words, such as `amd64`.
        settings: Further settings of apt, by name.

    Raises:
        InvalidInput: The sources that were named cannot be used.
        ImageError: The base names no usable source.
    """
    with scratch_directory("kfp-bento-apt-") as root, storage_errors(root):
        for name in ("etc", "etc/preferences.d", "lists/partial", "archives/partial", "log"):
            (root / name).mkdir(parents=True)
        (root / "status").write_text(facts.status, encoding="utf-8")
        for name, text in facts.preferences.items():
            (root / "etc/preferences.d" / name).write_text(text, encoding="utf-8")
        sources = apt_sources(facts, architecture, root / "keyrings")
        (root / "etc/base.sources").write_text(sources, encoding="utf-8")
        configuration = _configuration(root, architecture, settings or {})
        (root / "apt.conf").write_text(configuration, encoding="utf-8")
        yield root


def _configuration(root: Path, architecture: str, settings: Mapping[str, str]) -> str:
    """All of apt's settings; it reads nothing of this machine's /etc/apt.

    apt reads the file in APT_CONFIG first, and it says where all others would be.
    """
    places = {
        "Dir::Etc": root / "etc",
        "Dir::Etc::sourcelist": root / "etc/base.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::trusted": "/dev/null",
        "Dir::Etc::trustedparts": root / "keyrings",
        "Dir::State": root,
        "Dir::State::lists": root / "lists",
        "Dir::State::status": root / "status",
        "Dir::Cache": root,
        "Dir::Cache::archives": root / "archives",
        "Dir::Log": root / "log",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        # Dropping privileges needs privileges, and there are none.
        "APT::Sandbox::User": "",
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::AllowDowngradeToInsecureRepositories": "false",
        "Acquire::ForceHash": "sha256",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "30",
        "Acquire::https::Timeout": "30",
        **settings,
    }
    return "".join(f'{name} "{value}";\n' for name, value in places.items())


def run_apt(root: Path, program: str, *arguments: str) -> str:
    """Run one of apt's programs there, and give what it prints.

    Raises:
        ImageError: apt is missing, or fails: the archive cannot be reached, its signature is
            wrong, a package does not exist.
    """
    if shutil.which(program) is None:
        raise ImageError(
            f"System packages need apt, and there is no {program} here.",
            hint="Install apt (Debian package apt) beside kfp-bento, "
            "or use a base image that has the packages.",
        )
    done = run_program(
        [program, *arguments],
        doing="Finding system packages",
        directory=root,
        environment=clean_environment(
            _PROXIES,
            APT_CONFIG=str(root / "apt.conf"),
            LC_ALL="C",
            **for_other_programs(_ADDRESS.findall((root / "etc/base.sources").read_text())),
        ),
        seconds=_SECONDS,
        error=ImageError,
        hint=_WAY_OUT,
    )
    if done.status != 0:
        raise _failed(done.complaint if done.complaint.strip() else cleaned(done.output))
    return done.output


def _failed(output: str) -> ImageError:
    lines = [line.strip() for line in output.splitlines()]
    reasons = [line[3:] for line in lines if line.startswith(("E: ", "W: "))] or lines
    text = " ".join(dict.fromkeys(reasons))
    text = text[:1200].rstrip(". ")
    hint = _WAY_OUT
    if "Unable to locate" in text or "has no installation candidate" in text:
        hint = "Correct the name; it must be a package of the base's own Debian release."
    elif "Failed to fetch" in text or "Could not resolve" in text or "signed" in text:
        hint = (
            f"Let {SOURCES_VARIABLE} name a file with apt sources that can be reached from here "
            "and are signed, for example a mirror's."
        )
    return ImageError(f"The system packages cannot be had: {text}.", hint=hint)
