"""What a maintainer script does on a first installation, judged by its text; none is ever run.

Most of such a script is written by debhelper, which names the tool above every block that it adds:
a block of a tool that does nothing for an image is left out. Of the rest only literal calls of
`update-alternatives` count, and lines without consequence; anything else is for a person to judge,
once, in `known_scripts`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

# What adds blocks without consequence in an image, and why.
_IDLE_TOOLS = {
    "dh_installdeb": "dpkg-maintscript-helper acts on upgrades only",
    "dh_makeshlibs": "glibc looks into Debian's library directories without ldconfig's cache",
    "dh_python3": "bytecode is made at first use, or done without",
    "dh_pypy": "as above",
    "dh_installinit": "there is no service manager in a container",
    "dh_installsystemd": "as above",
    "dh_installsystemduser": "as above",
    "dh_systemd_enable": "as above",
    "dh_systemd_start": "as above",
    "dh_installtmpfiles": "as above",
    "dh_icons": "there is no desktop in a container",
    "dh_installmenu": "as above",
    "dh_installmime": "as above",
}
_BLOCK = re.compile(
    rf"^# Automatically added by (?:{'|'.join(_IDLE_TOOLS)})\b"
    r".*?^# End automatically added section$",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
# `$1` is `install` or `configure` here, and `$2`, the version that was there before, is empty.
_UPGRADE_BLOCK = re.compile(
    r"""^(?P<indent>[ \t]*)if\ (?:(?:\[|test)\ "?\$1"?\ =\ "?upgrade\b"?
        |dpkg\ --compare-versions\ "\$2"\ l[et]-nl\b)
        (?:(?!\bthen\b|\|\||\ -o\ ).)*\bthen\b
        (?:(?!^(?P=indent)el(?:se|if)\b).)*?^(?P=indent)fi$""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_OTHER_ARM = re.compile(
    r"^[ \t]*(?:(?:upgrade|remove|purge|triggered|abort-[a-z]+)[ |]*)+\).*?;;",
    re.MULTILINE | re.DOTALL,
)
_ARM = re.compile(r"^[ \t]*[\w*|\t -]+\)", re.MULTILINE)
_IDLE = re.compile(
    r"""|:|true|ldconfig|set\ -eu?|exit\ [01]|umask\ \d+
    |echo\ (?:\\.|\$1|[^\\`$|&<>])*(?:1?>&2)?
    |case\ "?\$1"?\ in|[\w*|\t -]+\)|esac|then|fi
    |if\ \[\ "?\$1"?\ =\ "?configure"?\ \](?:\ \|\|\ \[\ "?\$1"?\ =\ "?[\w-]+"?\ \])*""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Alternative:
    """One `update-alternatives --install`; paths are absolute.

    Attributes:
        link: The generic path, such as `/usr/lib/x86_64-linux-gnu/libblas.so.3`.
        name: The group's name below `/etc/alternatives`.
        path: What this package offers for it.
        priority: The highest one wins.
        slaves: Link, name and path of what follows the group's choice.
    """

    link: str
    name: str
    path: str
    priority: int
    slaves: tuple[tuple[str, str, str], ...] = ()


class UnclearError(Exception):
    """A script does something that an image would miss, or that is not understood."""


def script_effects(script: str) -> tuple[Alternative, ...]:
    """Judge a preinst or postinst on the path of a first installation.

    Returns:
        The alternatives that it registers, its only effect.

    Raises:
        UnclearError: It may do something else; the message says what, in a few words.
    """
    first = script.partition("\n")[0]
    if not re.fullmatch(r"#!\s*/bin/(ba|da)?sh( -e| -eu)?\s*", first):
        raise UnclearError(f"it is no plain shell script ('{first[:40]}')")
    return tuple(map(_alternative, _commands(script)))


def _commands(script: str) -> Iterator[str]:
    """Give the commands that would run and are not without consequence."""
    text = _COMMENT.sub("", _BLOCK.sub("", script)).replace("\\\n", " ")
    text = _OTHER_ARM.sub("", _UPGRADE_BLOCK.sub("", text))
    for command in re.split(r"[;\n]", _ARM.sub(r"\g<0>\n", text)):
        if not _IDLE.fullmatch(command.strip()):
            yield command.strip()


def _alternative(command: str) -> Alternative:
    refused = UnclearError(f"it runs '{command[:80]}'")
    try:
        words = [word for word in shlex.split(command) if word not in {"--quiet", "--force"}]
    except ValueError:
        raise refused from None
    if words[:2] != ["update-alternatives", "--install"] or set(command) & set("$`|&<>"):
        raise refused
    whole = len(words) >= 6 and len(words) % 4 == 2 and words[5].isdecimal()
    if not whole or set(words[6::4]) - {"--slave"}:
        raise refused
    link, name, path, priority = words[2:6]
    slaves = zip(words[7::4], words[8::4], words[9::4], strict=True)
    return Alternative(link, name, path, int(priority), tuple(slaves))
