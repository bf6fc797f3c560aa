"""What people found out about scripts of packages that `maintainer_script` cannot judge."""

from __future__ import annotations

from dataclasses import dataclass

from kfp_bento.runtime.images.debian.maintainer_script import Alternative


@dataclass(frozen=True)
class Known:
    """Why a package works without its scripts, and what the layer gets in their place.

    Attributes:
        reason: What is lost, for people.
        alternatives: What its scripts register.
        links: Symbolic links that the script would make, as pairs of path and target.
        files: Empty files that the script would make.
    """

    reason: str
    alternatives: tuple[Alternative, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    files: tuple[str, ...] = ()


_FONT_DEFAULTS = tuple(
    (f"etc/fonts/conf.d/{name}", f"/usr/share/fontconfig/conf.avail/{name}")
    for name in ("10-hinting-slight.conf", "70-no-bitmaps.conf")
)
_GLIB = Known("its caches of modules and settings are not made; GLib reads the directories instead")

_BYTECODE = Known("bytecode of Debian's own Python is not made")

_IMAGEMAGICK = tuple(
    Alternative(f"/usr/bin/{link}", link, f"/usr/bin/{program}-im6.q16", 10000)
    for program in (
        *("compare", "animate", "convert", "composite", "conjure", "import", "identify"),
        *("stream", "display", "montage", "mogrify"),
    )
    for link in (program, f"{program}-im6")
)

# Checked against Debian 12. A name stands for the package in every version: its scripts have done
# the same for years.
KNOWN = {
    "cpp": Known(
        "/lib/cpp is linked", alternatives=(Alternative("/lib/cpp", "cpp", "/usr/bin/cpp", 10),)
    ),
    "fontconfig": Known("its font cache is made at first use"),
    "fontconfig-config": Known("its default answers are taken", links=_FONT_DEFAULTS),
    "freetds-common": Known(
        "its sample configuration is taken",
        links=(("etc/freetds/freetds.conf", "/usr/share/freetds/freetds.conf"),),
    ),
    "hicolor-icon-theme": Known("its icon cache is not made"),
    "imagemagick-6.q16": Known("its commands are linked", alternatives=_IMAGEMAGICK),
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
    "openssl": Known("it only replaces /usr/lib/ssl, which it brings, where that is missing"),
    "procps": Known("it only tidies up after old versions and registers a service"),
    "python3": _BYTECODE,
    "python3-distutils": _BYTECODE,
    "python3-lib2to3": _BYTECODE,
    "python3.11": _BYTECODE,
    "readline-common": Known("/etc/inputrc (key bindings of a terminal) is not made"),
    "shared-mime-info": Known("its database of file types is not compiled"),
    "unixodbc-common": Known("an empty /etc/odbcinst.ini is made", files=("etc/odbcinst.ini",)),
    "unzip": Known("it registers with desktops, and there is none"),
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
