"""Confines itself and becomes another program; `confinement.py` starts it, by its path.

    python -I -S confined_start.py WAY HIDDEN PROGRAM [ARGUMENT …]

WAY is namespace, landlock-network or landlock. HIDDEN are paths, with colons between, whose files
cannot be read any more. Without a program it only says, by its status, whether this way works
here. It needs the standard library alone. Numbers are those of Linux, alike for all processors.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

FAILED = 97

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_SET_NO_NEW_PRIVILEGES, _DROP_FROM_BOUNDING_SET = 38, 24
_SET_SIGNAL_OF_PARENTS_DEATH = 1
# net_admin, sys_module, sys_rawio, sys_ptrace, sys_admin, perfmon, bpf: root's ways back out
_DROPPED = (12, 16, 17, 19, 21, 38, 39)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _MAKE_BLOCK_DEVICE, _REFER = 1 << 2, 1 << 11, 1 << 13
_CONNECT_TCP = 1 << 1
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


def main(way: str, hidden: list[str], argv: list[str]) -> None:
    """Confine this process, then become the program."""
    if way == "namespace":
        enter_namespace()
    for capability in _DROPPED:
        _libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)  # refused to all but root
    _checked(_libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    try:
        enter_domain(hidden, no_network=way == "landlock-network")
    except OSError:
        if way != "namespace":
            raise
    if argv:
        # Whoever started it may be killed, and nobody else knows that this runs.
        _libc.prctl(_SET_SIGNAL_OF_PARENTS_DEATH, signal.SIGKILL, 0, 0, 0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them, and that is inherited
        os.execvp(argv[0], argv)  # noqa: S606


def enter_namespace() -> None:
    """Enter a network that has nothing but a loopback device."""
    if _libc.unshare(_NEW_NETWORK) != 0:  # only root may
        user, group = os.geteuid(), os.getegid()
        _checked(_libc.unshare(_NEW_USER | _NEW_NETWORK))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        asked = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack("16xH14x", fcntl.ioctl(device, _GET_FLAGS, asked))
        fcntl.ioctl(device, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _UP))


def enter_domain(hidden: list[str], *, no_network: bool) -> None:
    """Enter a Landlock domain: processes outside can be neither read nor traced nor signalled.

    A domain has to handle something; ours forbids to make block devices. Moving files between
    directories is forbidden by any domain that does not allow it, so it is allowed everywhere.
    """
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < (4 if no_network else 2):
        raise OSError(errno.ENOSYS, "this kernel's Landlock is too old, or there is none")
    files = _MAKE_BLOCK_DEVICE | _REFER | _READ_FILE
    network = _CONNECT_TCP if no_network else 0
    scoped = _ABSTRACT_SOCKETS | _SIGNALS if version >= 6 else 0
    fields = (files, network, scoped)[: 1 if version < 4 else 2 if version < 6 else 3]
    rules = struct.pack(f"{len(fields)}Q", *fields)
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0))
    _allow(ruleset, "/", _REFER)
    for place in readable("/", [os.path.realpath(path) for path in hidden]):
        with contextlib.suppress(OSError):  # gone meanwhile
            _allow(ruleset, place, _READ_FILE)
    _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def readable(folder: str, hidden: list[str]) -> Iterator[str]:
    """Give the paths that hold all but what is hidden: a rule allows all below a path."""
    inside = [path for path in hidden if path.startswith(folder.rstrip("/") + "/")]
    if not any(os.path.lexists(path) for path in inside):
        yield folder
        return
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return
    for name in names:
        path = f"{folder.rstrip('/')}/{name}"
        if path not in hidden and not Path(path).is_symlink():
            yield from readable(path, inside)


def _allow(ruleset: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, place)
        _checked(_libc.syscall(_ADD_RULE, ruleset, 1, rule, 0))
    finally:
        os.close(place)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        try:
            main(sys.argv[1], sys.argv[2].split(os.pathsep), sys.argv[3:])
        except OSError as error:
            sys.stderr.write(f"{(sys.argv[3:] or sys.argv[1:])[0]}: {error.strerror}\n")
            sys.exit(FAILED)
