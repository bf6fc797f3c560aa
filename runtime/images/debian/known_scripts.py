"""What a Debian package's installation scripts would do in a fresh image, without running them.

Nothing can be run while layers are put together. Of the scripts in ``control.tar`` only
``preinst`` and ``postinst`` change the system when a package is installed for the first time
(Debian policy, chapter 6): ``prerm`` and ``postrm`` belong to removal, and ``config`` only asks
questions. These two are followed on the path of a first installation (`script_path`); what has a
consequence, or cannot be followed, is refused, unless the package is in `KNOWN`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """Why a package works without its scripts, and what the layer gets in their place.

    Attributes:
        reason: What is lost, for people.
        links: Symbolic links that the script would make, as pairs of path and target.
        files: Empty files that the script would make.
    """

    reason: str
    links: tuple[tuple[str, str], ...] = ()
    files: tuple[str, ...] = ()


_FONT_DEFAULTS = tuple(
    (f"etc/fonts/conf.d/{name}", f"/usr/share/fontconfig/conf.avail/{name}")
    for name in ("10-hinting-slight.conf", "70-no-bitmaps.conf")
)
_GLIB = Known("its caches of modules and settings are not made; GLib reads the directories instead")

_BYTECODE = Known("bytecode of Debian's own Python is not made")

# Checked against Debian 12. A name stands for the package in every version: its scripts have done
# the same for years.
KNOWN = {
    "fontconfig": Known("its font cache is made at first use"),
    "fontconfig-config": Known("its default answers are taken", links=_FONT_DEFAULTS),
    "freetds-common": Known(
        "its sample configuration is taken",
        links=(("etc/freetds/freetds.conf", "/usr/share/freetds/freetds.conf"),),
    ),
    "hicolor-icon-theme": Known("its icon cache is not made"),
    "libgdk-pixbuf-2.0-0": Known("image loaders from other packages (SVG) are not registered"),
    "libglib2.0-0": _GLIB,
    "libglib2.0-0t64": _GLIB,
    "libgstreamer1.0-0": Known("its clock helper (PTP) gets no privilege"),
    "libsensors5": Known("it only tidies up after versions before 3.1.1"),
    "libsybdb5": Known("it only replaces a link of old versions"),
    "libwrap0": Known("/etc/hosts.allow and hosts.deny are not made: no rule, as before"),
    "mariadb-common": Known(
        "its own configuration is taken", links=(("etc/mysql/my.cnf", "mariadb.cnf"),)
    ),
    "mysql-common": Known("it only chooses a configuration, which mariadb-common does"),
    "netbase": Known("/etc/hosts comes from the container runtime"),
    "procps": Known("it only tidies up after old versions and registers a service"),
    "python3": _BYTECODE,
    "python3-distutils": _BYTECODE,
    "python3-lib2to3": _BYTECODE,
    "python3.11": _BYTECODE,
    "readline-common": Known("/etc/inputrc (key bindings of a terminal) is not made"),
    "shared-mime-info": Known("its database of file types is not compiled"),
    "unixodbc-common": Known("an empty /etc/odbcinst.ini is made", files=("etc/odbcinst.ini",)),
    "x11-common": Known("it only registers a service of an X server"),
    "xz-utils": Known("the names lzma and unlzma are not made"),
}


# For people: what the script of a package that is often asked for does, where it is refused.
NEEDED = {
    "ca-certificates": "it runs update-ca-certificates to make the list of certificates",
    "libgvc6": "it runs `dot -c`, without which Graphviz finds none of its layouts",
    "openssh-client": "it makes a group",
    "openssh-server": "it makes a user and host keys",
    "dbus-system-bus-common": "it makes a user",
    "locales": "it runs locale-gen (C.UTF-8 is part of every Debian image)",
    "tdsodbc": "it registers the driver in /etc/odbcinst.ini",
}
