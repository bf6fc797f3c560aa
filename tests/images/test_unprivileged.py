"""The builder where Docker, Kaniko and BuildKit cannot run: no privilege of any kind.

The same jail (see `restricted`) is proved by a probe, used by the builder, and tried by buildah.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import write_base, write_bento
from restricted import UID, WRITABLE, Jail, jail_in

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images import ImageOptions, build_image

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

# All but the mount would succeed for anybody, were it not for the filter.
PROBE = f"""\
import ctypes, errno, json, os, platform, pwd, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)

def refused(call, *arguments):
    ctypes.set_errno(0)
    result = call(*arguments)
    return errno.errorcode.get(ctypes.get_errno(), "") if result == -1 else "allowed"

def writes(folder):
    try:
        open(os.path.join(folder, "probe"), "w").close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "allowed"

def passwd():
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None

own = (b"{WRITABLE}/probe", os.getuid(), os.getgid())
clone = {{"x86_64": 56, "aarch64": 220}}[platform.machine()]
found = {{
    "writes": {{folder: writes(folder) for folder in ["{WRITABLE}", "/", "/usr", *sys.argv[1:]]}},
    "uid": os.getuid(),
    "gid": os.getgid(),
    "passwd": passwd(),
    "home": os.environ.get("HOME"),
    "mount": refused(libc.mount, b"none", b"{WRITABLE}", b"tmpfs", 0, None),
    "unshare": refused(libc.unshare, 0x10000000),
    "clone": refused(libc.syscall, clone, 0x10000000 | 17, 0, 0, 0, 0),
    "chown": refused(libc.chown, *own),
    "setuid": refused(libc.setuid, os.getuid()),
    "ptrace": refused(libc.ptrace, 0, 0, 0, 0),
    "forks": subprocess.run(["true"]).returncode,
    "status": dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line),
}}
print(json.dumps(found))
"""
COMMAND = (sys.executable, "-m", "kfp_bento.runtime.cli")
# A real wheel from the package index: 70 kB, no dependencies.
IDNA = "idna==3.10 --hash=sha256:946d195a0d259cbba61165e88e65941f16e9b36ea6ddb97f00452bae8b1287d3\n"


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Jail:
    return jail_in(tmp_path_factory.mktemp("jail"))


@pytest.fixture
def registry_base(oci_registry: str, tmp_path: Path) -> str:
    """A base image in the real registry, so that the jail need see no file of it."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    layout = write_base(tmp_path / "base")
    name = f"{oci_registry}/base:{tmp_path.name.lower()}"
    copy = ["skopeo", "copy", "--quiet", "--all", "--dest-tls-verify=false", layout]
    subprocess.run([*copy, f"docker://{name}"], check=True, capture_output=True)
    return name


def build_in(
    jail: Jail, bento: Bento, to: str, base: str, *before: str, **environment: str
) -> dict[str, Any]:
    inside = replace(jail, readable=(bento.directory,))
    done = inside.run(
        *(*before, *COMMAND, "image", "build", bento.directory),
        *("--to", to, "--base", base, "--json"),
        **environment,
    )
    assert done.returncode == 0, done.stderr
    built: dict[str, Any] = json.loads(done.stdout)
    return built


def test_the_jail_takes_everything_away(jail: Jail) -> None:
    code = str(Path(__file__).resolve().parents[2])
    done = jail.run(sys.executable, "-c", PROBE, code, sys.prefix)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    status = {name: value.strip() for name, value in found.pop("status").items()}
    assert found == {
        "writes": {WRITABLE: "allowed", "/": "EROFS", "/usr": "EROFS"}
        | {code: "EROFS", sys.prefix: "EROFS"},
        "uid": UID,
        "gid": 0,
        "passwd": None,
        "home": "/",
        **dict.fromkeys(("mount", "unshare", "clone", "chown", "setuid", "ptrace"), "EPERM"),
        "forks": 0,
    }
    sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    assert {status[name] for name in sets} == {"0000000000000000"}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split() == [str(UID)] * 4


def test_an_image_is_built_and_pushed_without_any_privilege(
    jail: Jail, bento: Bento, oci_registry: str, registry_base: str, tmp_path: Path
) -> None:
    ordinary = build_image(bento, f"oci:{tmp_path}/ordinary", ImageOptions(base=registry_base))
    to = f"{oci_registry}/team/{tmp_path.name.lower()}:v1"
    cold = build_in(jail, bento, to, registry_base)
    assert cold["digest"] == ordinary.digest
    assert [layer["origin"] for layer in cold["layers"]].count("built") == 4
    # skopeo checks each blob and every diff id on the way.
    source = f"docker://{to.rpartition(':')[0]}@{cold['digest']}"
    copy = ["skopeo", "copy", "--preserve-digests", "--src-tls-verify=false", source]
    subprocess.run([*copy, f"oci:{tmp_path}/out:v1"], check=True, capture_output=True)
    index = json.loads((tmp_path / "out/index.json").read_bytes())
    assert [item["digest"] for item in index["manifests"]] == [ordinary.digest]
    again = build_in(jail, bento, to, registry_base)
    assert again["reused"] and again["digest"] == ordinary.digest


def test_nothing_is_left_in_the_writable_directory(
    jail: Jail, bento: Bento, oci_registry: str, registry_base: str
) -> None:
    before = sorted(jail.writable.rglob("*"))
    build_in(jail, bento, f"{oci_registry}/team/clean:v1", registry_base)
    assert sorted(jail.writable.rglob("*")) == before


@pytest.mark.parametrize("home", ["unset", "scratch"])
def test_there_need_be_no_home(
    jail: Jail, bento: Bento, oci_registry: str, registry_base: str, tmp_path: Path, home: str
) -> None:
    # runc sets HOME to / for whoever has no passwd entry.
    before = ("env", "-u", "HOME") if home == "unset" else ("env", f"HOME={WRITABLE}/home")
    (jail.writable / "home").mkdir(exist_ok=True)
    (jail.writable / "home").chmod(0o770)
    built = build_in(jail, bento, f"{oci_registry}/team/{home}:v1", registry_base, *before)
    ordinary = build_image(bento, f"oci:{tmp_path}/ordinary", ImageOptions(base=registry_base))
    assert built["digest"] == ordinary.digest


def test_layers_are_kept_in_a_cache_that_the_uid_may_write(
    jail: Jail, bento: Bento, oci_registry: str, registry_base: str
) -> None:
    cache = {"KFP_BENTO_CACHE": f"{WRITABLE}/cache"}
    first = build_in(jail, bento, f"{oci_registry}/team/cached:v1", registry_base, **cache)
    second = build_in(jail, bento, f"{oci_registry}/team/cached:v2", registry_base, **cache)
    assert second["digest"] == first["digest"]
    origins = {layer["kind"]: layer["origin"] for layer in second["layers"]}
    assert origins["dependencies"] == "reused"


def test_a_wheel_from_the_package_index_is_installed_without_any_privilege(
    jail: Jail, oci_registry: str, registry_base: str, tmp_path: Path
) -> None:
    bento = write_bento(tmp_path / "indexed", IDNA)
    try:
        ordinary = build_image(bento, f"oci:{tmp_path}/ordinary", ImageOptions(base=registry_base))
    except ImageError as error:
        pytest.skip(f"the package index gives no wheel: {error.message[-200:]}")
    built = build_in(jail, bento, f"{oci_registry}/team/indexed:v1", registry_base)
    assert built["digest"] == ordinary.digest
    assert "idna 3.10" in [layer["title"] for layer in built["layers"]]


def test_a_directory_that_cannot_be_written_is_named(
    jail: Jail, bento: Bento, registry_base: str
) -> None:
    inside = replace(jail, readable=(bento.directory,))
    done = inside.run(
        *(*COMMAND, "image", "build", bento.directory),
        *("--to", "oci:/usr/image", "--base", registry_base),
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "/usr" in done.stderr and "Read-only file system" in done.stderr


@pytest.mark.parametrize("uid", [UID, 65534], ids=["random uid", "nobody"])
def test_buildah_cannot_even_copy_a_file_there(jail: Jail, tmp_path: Path, uid: int) -> None:
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    context = tmp_path / "context"
    context.mkdir()
    (context / "note.txt").write_text("a note\n")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY note.txt /note.txt\n")

    def command(storage: Path) -> list[str]:
        places = ["--root", f"{storage}/root", "--runroot", f"{storage}/run"]
        build = ["build", "--isolation", "chroot", "--tag", "note", str(context)]
        return ["buildah", "--storage-driver", "vfs", *places, *build]

    outside = subprocess.run(
        command(tmp_path / "storage"), capture_output=True, text=True, check=False
    )
    if outside.returncode != 0:
        pytest.skip(f"buildah fails outside the jail too: {outside.stderr.strip()[-200:]}")
    inside = replace(jail, readable=(context,), uid=uid)
    home = f"{WRITABLE}/buildah-{uid}"
    done = inside.run(*command(Path(home)), HOME=home, XDG_RUNTIME_DIR=home)
    assert done.returncode != 0
    reason = "unknown userid" if uid == UID else "Operation not permitted"
    assert reason.lower() in done.stderr.lower()
