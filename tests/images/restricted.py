"""A jail as a pod in a namespace with PodSecurity "restricted" has it, and stricter, made by runc.

A process in it runs as a random uid without a passwd entry (as OpenShift gives out), with group 0,
no capabilities, ``no_new_privs``, a seccomp filter, a read-only root and one writable directory.
The root holds what Python needs to run, at the paths it has here, and nothing else. The network
is that of this machine, so that a registry on the loopback can be reached.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from containers import mounts_below

UID = 1000730123
WRITABLE = "/scratch"
SECONDS = 300

_EPERM, _ENOSYS = 1, 38
_REFUSED = (
    *("mount", "umount", "umount2", "move_mount", "open_tree", "fsopen", "fsmount", "fsconfig"),
    *("mount_setattr", "pivot_root", "chroot", "unshare", "setns"),
    *("chown", "fchown", "lchown", "fchownat"),
    *("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups"),
    *("setfsuid", "setfsgid", "ptrace", "process_vm_readv", "process_vm_writev"),
    *("keyctl", "add_key", "request_key", "bpf", "perf_event_open", "userfaultfd"),
    *("mknod", "mknodat"),
)
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (sched.h).
_NAMESPACES = (
    *(0x00020000, 0x02000000, 0x04000000, 0x08000000),
    *(0x10000000, 0x20000000, 0x40000000),
)
_SYSTEM = ("/bin", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr")
# The package index is the same in the jail as outside.
_INHERITED = ("PATH", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Jail:
    """Runs commands in a jail of their own.

    Attributes:
        folder: Where the bundles of the jails are made.
        writable: The directory that is ``/scratch`` inside, the only one that can be written.
        readable: More directories to show, read-only, at the paths they have here.
        uid: Who the commands run as.
    """

    folder: Path
    writable: Path
    readable: tuple[Path, ...] = ()
    uid: int = UID

    def run(
        self, *command: str | Path, seconds: float = SECONDS, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, whatever that is; nothing of the jail is left behind."""
        name = f"kfp-bento-{uuid.uuid4().hex[:12]}"
        bundle = self.folder / name
        (bundle / "rootfs").mkdir(parents=True)
        config = _config(self._mounts())
        config["process"] |= {
            "user": {"uid": self.uid, "gid": 0},
            "args": [str(part) for part in command],
            "env": [f"{k}={v}" for k, v in {**_environment(), **environment}.items()],
        }
        (bundle / "config.json").write_text(json.dumps(config))
        runc = ["runc", "--root", str(self.folder / "state")]
        try:
            return subprocess.run(
                [*runc, "run", "--bundle", str(bundle), name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        finally:
            subprocess.run([*runc, "delete", "--force", name], capture_output=True, check=False)
            # The mounts were in a namespace that is gone; were they not, this would follow them.
            if not mounts_below(bundle):
                shutil.rmtree(bundle, ignore_errors=True)

    def _mounts(self) -> list[dict[str, Any]]:
        shown = [_bind(place, place, "ro") for place in _shown(self.readable)]
        return [*shown, _bind(self.writable, Path(WRITABLE), "rw")]


def jail_in(folder: Path, *readable: Path) -> Jail:
    """A jail whose bundles and writable directory are below a folder; skips where there is none."""
    if os.geteuid() != 0:
        pytest.skip("only root can make the jail that takes everything away")
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed")
    writable = folder / "writable"
    writable.mkdir(parents=True)
    # As OpenShift does with an emptyDir: group 0 may write, and so may the uid.
    writable.chmod(0o2770)
    jail = Jail(folder, writable, readable)
    try:
        started = jail.run(sys.executable, "-c", "", seconds=60)
    except subprocess.TimeoutExpired:
        pytest.skip("runc does not start a container within 60 seconds here")
    if started.returncode != 0:
        pytest.skip(f"runc cannot run Python in a jail here: {started.stderr.strip()[-300:]}")
    return jail


def _shown(readable: tuple[Path, ...]) -> list[Path]:
    """What is to be seen in the jail; what lies below another one comes after it."""
    prefixes = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}
    packages = {Path(entry) for entry in sys.path if Path(entry).is_absolute()}
    own = {Path(__file__).resolve().parents[2]}
    wanted = prefixes | packages | own | set(readable)
    system = {Path(name) for name in _SYSTEM if not Path(name).is_symlink()}
    return sorted(place for place in wanted | system if place.is_dir() and place != Path("/"))


def _bind(source: Path, destination: Path, access: str) -> dict[str, Any]:
    return {
        "destination": str(destination),
        "source": str(source.resolve()),
        "type": "bind",
        "options": ["bind", "nosuid", "nodev", access],
    }


def _environment() -> dict[str, str]:
    names = [name for name in os.environ if name in _INHERITED or name.startswith("UV_")]
    inherited = {name: os.environ[name] for name in names if name != "UV_CACHE_DIR"}
    return {**inherited, "TMPDIR": WRITABLE, "LANG": "C.UTF-8"}


def _config(mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """A bundle's ``config.json`` (OCI runtime specification), but for what is run."""
    nothing: list[str] = []
    kinds = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": True},
        "process": {
            "terminal": False,
            "cwd": "/",
            "capabilities": dict.fromkeys(kinds, nothing),
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "noexec", "mode=755", "size=64k"],
            },
            *_links(),
            *mounts,
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"],
            "seccomp": _seccomp(),
        },
    }


def _links() -> list[dict[str, Any]]:
    """Where /bin and /lib are symlinks to /usr, the jail shows the directories themselves."""
    links = [Path(name) for name in _SYSTEM if Path(name).is_symlink()]
    return [_bind(link, link, "ro") for link in links if link.is_dir()]


def _seccomp() -> dict[str, Any]:
    new_namespace = [
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": _EPERM,
            "args": [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}],
        }
        for flag in _NAMESPACES
    ]
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": list(_REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM},
            # Its flags are behind a pointer, out of a filter's sight; clone serves as well.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            *new_namespace,
        ],
    }
