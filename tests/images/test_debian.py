"""System packages: what the base holds, what apt chooses, what is unpacked, and that it runs."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from platform import machine

import pytest
from containers import run
from debs import base_layer, facts, link, make_archive, make_deb, member, packed
from handmade import write, write_bento
from proxy_server import ProxyServer

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.images.attestations.attachments import read_attachments
from kfp_bento.runtime.images.attestations.sbom import SBOM_TYPE
from kfp_bento.runtime.images.debian.deb import data_members
from kfp_bento.runtime.images.debian.layer import package_entries, unpack_packages
from kfp_bento.runtime.images.debian.maintainer_script import (
    Alternative,
    UnclearError,
    script_effects,
)
from kfp_bento.runtime.images.debian.packages import (
    DebianPackage,
    SystemPackages,
    fetch_packages,
    resolve_packages,
)
from kfp_bento.runtime.images.debian.rootfs import RootFilesystem, probe_base, release_of
from kfp_bento.runtime.images.debian.sources import SOURCES_VARIABLE, apt_sources
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.config import canonical_json, descriptor_of, image_manifest
from kfp_bento.runtime.images.oci.image import OCI_CONFIG, Layer, parse_platform
from kfp_bento.runtime.images.oci.layers import codec_named, write_layer
from kfp_bento.runtime.images.oci.tar import DEFAULT_EPOCH, TarEntry, tar_stream
from kfp_bento.runtime.images.places.layout import layout_sink

AMD64 = parse_platform("linux/amd64")
ARM64 = parse_platform("linux/arm64")
needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt is not installed")
needs_gpg = pytest.mark.skipif(
    shutil.which("gpg") is None or shutil.which("dpkg-deb") is None,
    reason="gpg or dpkg-deb is not installed",
)


# --- what a base holds ---------------------------------------------------------------------------


def probed(tmp_path: Path, *layers: tuple[bytes, str]) -> RootFilesystem:
    blobs = BlobDirectory(tmp_path / "blobs-of-base")
    return probe_base([base_layer(blobs, content, codec) for content, codec in layers], blobs)


LOWEST = packed(
    [
        member("./", None),
        member("./etc", None),
        member("./etc/os-release", b'ID=debian\nVERSION_ID="12"\n'),
        link("./lib", "usr/lib"),
        member("./usr/lib/old/deep", None),
        member("./usr/share/gone", None),
        member("./var/lib/dpkg/status", b"Package: a\nVersion: 1\nArchitecture: amd64\n"),
        link("./etc/file-link", "os-release"),
    ]
)


def test_layers_are_read_as_an_image_is_put_together_from_them(tmp_path: Path) -> None:
    status = b"Package: b\nStatus: install ok installed\nVersion: 2\nArchitecture: amd64\n"
    upper = packed(
        [
            member("usr/lib/old/.wh..wh..opq"),
            member("usr/lib/old/new", None),
            member("usr/share/.wh.gone"),
            member("var/lib/dpkg/status", status),
        ]
    )
    found = probed(tmp_path, (LOWEST, "gz"), (upper, "zst"))
    assert {"usr/lib/old", "usr/lib/old/new", "usr/share"} <= found.directories
    assert not {"usr/lib/old/deep", "usr/share/gone"} & found.directories
    assert found.packages == {"b": "2"}
    assert found.links == {"lib": "usr/lib"}
    assert release_of(found) == "debian 12"


def test_a_directory_that_became_a_file_is_none_any_more(tmp_path: Path) -> None:
    found = probed(tmp_path, (LOWEST, ""), (packed([member("usr/lib/old", b"file")]), ""))
    assert "usr/lib/old" not in found.directories
    assert "usr/lib/old/deep" not in found.directories


def test_facts_survive_json(tmp_path: Path) -> None:
    keyring = member("etc/apt/trusted.gpg.d/a.gpg", b"\x99\x01")
    found = probed(tmp_path, (LOWEST, ""), (packed([keyring]), "gz"))
    assert RootFilesystem.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.keyrings == {"/etc/apt/trusted.gpg.d/a.gpg": b"\x99\x01"}


def test_images_without_dpkg_say_what_they_hold_in_one_file_per_package(tmp_path: Path) -> None:
    stanza = b"Package: libssl3\nVersion: 3.0\nArchitecture: arm64\n"
    record = member("var/lib/dpkg/status.d/libssl3", stanza)
    sums = member("var/lib/dpkg/status.d/libssl3.md5sums", b"0 usr/lib/x\n")
    found = probed(tmp_path, (packed([record, sums]), ""))
    assert found.packages == {"libssl3": "3.0"}
    assert found.architecture == "arm64"


def test_a_damaged_layer_is_named(tmp_path: Path) -> None:
    blobs = BlobDirectory(tmp_path)
    whole = base_layer(blobs, LOWEST, "gz")
    broken = blobs.put_bytes(blobs.path(whole.digest).read_bytes()[:-40], whole.media_type)
    layer = dataclasses.replace(whole, digest=broken.digest, size=broken.size)
    with pytest.raises(ImageError, match=broken.digest):
        probe_base([layer], blobs)


# --- where packages come from --------------------------------------------------------------------


def test_both_formats_of_sources_are_understood(tmp_path: Path) -> None:
    base = facts(
        sources={
            "sources.list": "# deb http://no.example x y\n"
            "deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian bookworm main # c\n"
            "deb-src http://one.example/debian bookworm main\n",
            "a.sources": "Types: deb deb-src\n# c\nURIs: http://two.example/debian\n"
            "Suites: bookworm\n bookworm-updates\nComponents: main\n\n"
            "Enabled: no\nTypes: deb\nURIs: http://three.example\nSuites: ./\n",
        },
        keyrings={"/k.gpg": b"key"},
    )
    text = apt_sources(base, "amd64", tmp_path / "keyrings")
    assert "http://one.example/debian" in text
    assert "bookworm-updates" in text
    assert "three.example" not in text
    assert "deb-src" not in text
    assert (tmp_path / "signed-by/k.gpg").read_bytes() == b"key"
    assert str(tmp_path / "signed-by/k.gpg") in text


@pytest.mark.parametrize(
    "source", ["deb [trusted=yes] http://a.example x y", "deb [allow-insecure=yes] http://a.e x y"]
)
def test_a_source_that_turns_signatures_off_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(InvalidInput, match="signature checks off"):
        apt_sources(facts(sources={"sources.list": source}), "amd64", tmp_path / "keyrings")


def test_a_base_does_not_get_to_read_files_of_this_machine(tmp_path: Path) -> None:
    base = facts(sources={"sources.list": "deb file:/srv/mirror x main"})
    with pytest.raises(ImageError, match="'file:'"):
        apt_sources(base, "amd64", tmp_path / "keyrings")


def test_a_base_without_sources_needs_some_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="names no package archive") as failure:
        apt_sources(facts(), "amd64", tmp_path / "keyrings")
    assert SOURCES_VARIABLE in failure.value.hint


# --- apt as the solver, with an archive of our own -----------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    folder = tmp_path_factory.mktemp("archive")
    debs = [
        make_deb(folder / "wanted_1.0_amd64.deb", depends="needed (>= 2), libc6"),
        make_deb(folder / "needed_2.5-1_all.deb"),
        make_deb(folder / "demanding_1_amd64.deb", depends="libc6 (>= 2.37)"),
        make_deb(folder / "libc6_2.37-1_amd64.deb"),
    ]
    return make_archive(folder, debs)


@pytest.fixture
def base_of_archive(
    archive: tuple[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RootFilesystem:
    source, key = archive
    monkeypatch.setenv(SOURCES_VARIABLE, str(write(tmp_path / "sources", source)))
    return facts(keyrings={"/usr/share/keyrings/debian-archive-keyring.gpg": key})


@needs_apt
@needs_gpg
def test_what_the_base_lacks_is_chosen_with_versions_and_digests(
    base_of_archive: RootFilesystem, tmp_path: Path
) -> None:
    chosen = resolve_packages(["wanted", "libc6"], base_of_archive, AMD64)
    assert [(item.name, item.version, item.architecture) for item in chosen.packages] == [
        ("needed", "2.5-1", "all"),
        ("wanted", "1.0", "amd64"),
    ]
    files = fetch_packages(chosen, base_of_archive, tmp_path)
    assert {path.name for path in files.values()} == {
        "needed_2.5-1_all.deb",
        "wanted_1.0_amd64.deb",
    }
    assert "file:" not in repr(chosen)


@pytest.fixture
def served_archive(archive: tuple[str, bytes]) -> Iterator[str]:
    """The same archive on a web server of this machine."""
    found = re.search(r"file:(\S+)", archive[0])
    assert found is not None
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=found[1])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@needs_apt
@needs_gpg
@pytest.mark.parametrize("behind", [True, False])
def test_an_archive_is_reached_by_the_rule_that_holds_everywhere(
    archive: tuple[str, bytes],
    served_archive: str,
    base_of_archive: RootFilesystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    behind: bool,
) -> None:
    name = "archive.only.example:80" if behind else served_archive
    source = re.sub(r"file:\S+", f"http://{name}/", archive[0])
    monkeypatch.setenv(SOURCES_VARIABLE, str(write(tmp_path / "sources", source)))
    for variable in ("http_proxy", "https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with ProxyServer({name: served_archive}) as proxy:
        # Without a scheme, and in capitals: apt by itself would not read it.
        monkeypatch.setenv("HTTP_PROXY", proxy.host)
        chosen = resolve_packages(["wanted"], base_of_archive, AMD64)
    assert {item.name for item in chosen.packages} == {"needed", "wanted"}
    assert bool(proxy.asked) is behind


@needs_apt
@needs_gpg
def test_packages_of_the_base_are_not_replaced(base_of_archive: RootFilesystem) -> None:
    with pytest.raises(ImageError, match=r"libc6 2\.36-9 to be replaced by 2\.37-1"):
        resolve_packages(["demanding"], base_of_archive, AMD64)


@needs_apt
@needs_gpg
@pytest.mark.parametrize(
    ("name", "reason"), [("absent", "Unable to locate package absent"), ("wanted=9", "'9'")]
)
def test_a_package_that_does_not_exist_is_named(
    base_of_archive: RootFilesystem, name: str, reason: str
) -> None:
    with pytest.raises(ImageError, match=reason):
        resolve_packages([name], base_of_archive, AMD64)


@needs_apt
@needs_gpg
def test_an_archive_with_another_signature_is_refused(
    base_of_archive: RootFilesystem, tmp_path: Path
) -> None:
    other = make_archive(tmp_path / "other", [])[1]
    stranger = dataclasses.replace(base_of_archive, keyrings={"/etc/apt/trusted.gpg": other})
    with pytest.raises(ImageError, match=r"signature|signed"):
        resolve_packages(["wanted"], stranger, AMD64)


@needs_apt
@needs_gpg
def test_a_file_that_is_not_the_chosen_one_is_refused(
    base_of_archive: RootFilesystem, tmp_path: Path
) -> None:
    chosen = resolve_packages(["needed"], base_of_archive, AMD64)
    forged = dataclasses.replace(chosen.packages[0], sha256="0" * 64)
    with pytest.raises(ImageError, match="Hash Sum mismatch"):
        fetch_packages(dataclasses.replace(chosen, packages=(forged,)), base_of_archive, tmp_path)


@needs_apt
@needs_gpg
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
def test_choosing_works_as_a_user_that_nobody_knows(
    archive: tuple[str, bytes], base_of_archive: RootFilesystem
) -> None:
    script = (
        "import json, sys; from kfp_bento.runtime.images.debian.rootfs import RootFilesystem;"
        "from kfp_bento.runtime.images.debian.packages import resolve_packages;"
        "from kfp_bento.runtime.images.oci.image import parse_platform;"
        "base = RootFilesystem.from_dict(json.load(sys.stdin));"
        "print(resolve_packages(['wanted'], base, parse_platform('linux/amd64')).packages)"
    )
    place = Path(archive[0].split()[1].removeprefix("file:"))
    for folder in (*place.parents, *Path(os.environ[SOURCES_VARIABLE]).parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    drop = ["setpriv", "--reuid", "1000680000", "--regid", "0", "--clear-groups"]
    drop += ["--no-new-privs", "--bounding-set", "-all", "--inh-caps", "-all"]
    done = subprocess.run(
        [*drop, sys.executable, "-c", script],
        input=json.dumps(base_of_archive.to_dict()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "wanted" in done.stdout, done.stderr


def test_without_apt_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    base = facts(sources={"sources.list": "deb http://a.example x main"})
    with pytest.raises(ImageError, match="no apt-get here") as failure:
        resolve_packages(["curl"], base, AMD64)
    assert "Install apt" in failure.value.hint


def test_a_base_that_is_no_debian_is_refused() -> None:
    with pytest.raises(ImageError, match=r"no Debian \('alpine 3"):
        resolve_packages(["curl"], facts(os_release={"ID": "alpine", "VERSION_ID": "3"}), AMD64)


@pytest.mark.parametrize("name", ["--force", "a b", "Curl", "curl/../x", ""])
def test_what_is_no_name_never_reaches_apt(name: str) -> None:
    with pytest.raises(InvalidInput, match="no name of a Debian package"):
        resolve_packages([name], facts(), AMD64)


# --- unpacking -----------------------------------------------------------------------------------


def unpacked(
    tmp_path: Path, *debs: Path, base: RootFilesystem | None = None
) -> dict[str, TarEntry]:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    files = {
        DebianPackage(deb.name.partition("_")[0], "1", "amd64", deb.name, 0, deb.name): deb
        for deb in debs
    }
    entries = unpack_packages(files, base or facts(), scratch, lambda sentence: None)
    b"".join(tar_stream(entries, DEFAULT_EPOCH))  # it is a layer
    return {entry.path: entry for entry in entries}


@pytest.mark.parametrize("compression", ["xz", "gz", "zst", "none"])
def test_a_layer_holds_what_the_package_brings_and_nothing_of_the_base(
    tmp_path: Path, compression: str
) -> None:
    deb = make_deb(
        tmp_path / "a_1_amd64.deb",
        [
            member("./", None),
            member("./lib", None),
            member("./lib/x86_64-linux-gnu", None),
            member("./lib/x86_64-linux-gnu/liba.so.1.0", b"elf"),
            link("./lib/x86_64-linux-gnu/liba.so.1", "liba.so.1.0"),
            member("./etc/a", None, mode=0o700),
            member("./usr/share/man/man1/a.1.gz", b"x"),
            member("./usr/share/doc/a/copyright", b"mine"),
            member("./usr/share/doc/a/changelog.gz", b"x"),
        ],
        compression=compression,
    )
    found = unpacked(tmp_path, deb)
    assert {path: entry.kind for path, entry in found.items()} == {
        "etc/a": "directory",
        "usr/lib/x86_64-linux-gnu/liba.so.1": "symlink",
        "usr/lib/x86_64-linux-gnu/liba.so.1.0": "file",
        "usr/share/doc/a": "directory",
        "usr/share/doc/a/copyright": "file",
        "var/lib/dpkg/status.d": "directory",
        "var/lib/dpkg/status.d/a": "file",
        "var/lib/dpkg/status.d/a.md5sums": "file",
    }
    assert found["etc/a"].mode == 0o700
    assert found["var/lib/dpkg/status.d/a"].content.startswith(b"Package: a\nVersion: 1\n")


def test_without_a_merged_usr_paths_stay_as_they_are(tmp_path: Path) -> None:
    deb = make_deb(tmp_path / "a_1_amd64.deb", [member("./lib/liba.so", b"elf")])
    assert "lib/liba.so" in unpacked(tmp_path, deb, base=facts(links={}))


def test_several_names_of_one_file_are_stored_once(tmp_path: Path) -> None:
    members = [
        member("./usr/lib/z.so", b"driver"),
        link("./usr/lib/b.so", "./usr/lib/z.so", tarfile.LNKTYPE),
        link("./usr/lib/y.so", "./usr/lib/z.so", tarfile.LNKTYPE),
    ]
    found = unpacked(tmp_path, make_deb(tmp_path / "a_1_amd64.deb", members))
    assert found["usr/lib/b.so"].kind == "file"
    assert [found[f"usr/lib/{name}.so"].target for name in "yz"] == ["usr/lib/b.so"] * 2


@pytest.mark.parametrize(
    ("evil", "reason"),
    [
        (member("./usr/../../etc/passwd", b"x"), "leaves the root"),
        (member("/etc/passwd", b"x"), "leaves the root"),
        (link("./usr/lib/a", "../../../etc"), "leaves the root"),
        (link("./usr/lib/a", "../../etc", tarfile.LNKTYPE), "leaves the root"),
        (member("./dev/sda", b"", type=tarfile.BLKTYPE), "device or pipe"),
        (member("./usr/bin/pipe", b"", type=tarfile.FIFOTYPE), "device or pipe"),
        (member("./usr/bin/su", b"x", mode=0o4755), "setuid"),
        (member("./usr/bin/write", b"x", mode=0o2755), "setuid or setgid"),
        (member("./usr/bin/a", b"x", uid=33), "owned by 33:0"),
        (member("./usr/lib/.wh.libc.so.6", b""), "deleted file"),
        (
            member("./usr/bin/ping", b"x", pax_headers={"SCHILY.xattr.security.capability": "x"}),
            "capabilities",
        ),
    ],
)
def test_a_hostile_package_is_refused(
    tmp_path: Path, evil: tuple[tarfile.TarInfo, bytes], reason: str
) -> None:
    deb = make_deb(tmp_path / "evil_1_amd64.deb", [evil])
    with pytest.raises(ImageError, match=reason):
        unpacked(tmp_path, deb)


@pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"!<arch>\nrubbish" * 9, b"PK"])
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes) -> None:
    deb = tmp_path / "a.deb"
    deb.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.deb cannot be put"):
        list(data_members(deb))


def test_a_package_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    deb = make_deb(tmp_path / "a_1_amd64.deb", [member("./usr/a", os.urandom(9000))])
    deb.write_bytes(deb.read_bytes()[:-4000])
    with pytest.raises(ImageError, match="damaged"):
        unpacked(tmp_path, deb)


def test_two_packages_with_the_same_file_are_refused(tmp_path: Path) -> None:
    debs = [make_deb(tmp_path / f"{name}_1_all.deb", [member("./usr/x", b"1")]) for name in "ab"]
    with pytest.raises(ImageError, match="'usr/x' is in a as well"):
        unpacked(tmp_path, *debs)


def test_a_link_in_place_of_a_directory_of_the_base_is_refused(tmp_path: Path) -> None:
    deb = make_deb(tmp_path / "a_1_all.deb", [link("./usr/lib/x86_64-linux-gnu", "/tmp")])
    with pytest.raises(ImageError, match="is a directory in the base"):
        unpacked(tmp_path, deb)


def test_a_file_below_a_link_of_another_package_is_refused(tmp_path: Path) -> None:
    first = make_deb(tmp_path / "a_1_all.deb", [link("./usr/way", "/etc")])
    second = make_deb(tmp_path / "b_1_all.deb", [member("./usr/way/passwd", b"x")])
    with pytest.raises(ImageError, match="below the link 'usr/way'"):
        unpacked(tmp_path, first, second)


# --- maintainer scripts --------------------------------------------------------------------------

HEAD = "#!/bin/sh\nset -e\n"


def added_by(tool: str, text: str) -> str:
    return f"# Automatically added by {tool}/13.11.4\n{text}# End automatically added section\n"


@pytest.mark.parametrize(
    "script",
    [
        "# nothing\n",
        'case "$1" in\n  configure)\n  ;;\n  upgrade|remove) rm -rf / ;;\nesac\nexit 0\n',
        'case "$1" in\n    install|upgrade)\n    if dpkg --compare-versions "$2" lt-nl 2; then\n'
        "        update-alternatives --remove-all x || true\n    fi\n    ;;\n    *)\n"
        '    echo "preinst called with unknown argument \\`$1\'" >&2\n    exit 1\n    ;;\nesac\n',
        'if [ "$1" = upgrade ] && dpkg --compare-versions "$2" lt 2; then\n\trm /etc/x\nfi\n',
        'if test "$1" = "upgrade" &&\n   test -L /x; then\n\tif true; then\n\t\trm /x\n\tfi\nfi\n',
        'if [ "$1" = configure ]; then\n\tif dpkg --compare-versions "$2" lt-nl 2; then\n'
        "\t\tadduser x\n\tfi\nfi\n",
        'if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ]; then\n\tldconfig\nfi\n',
        added_by("dh_installdeb", 'dpkg-maintscript-helper rm_conffile /etc/x 1.0\\~ -- "$@"\n'),
        added_by(
            "dh_python3", "if command -v py3compile >/dev/null; then\n\tpy3compile -p x\nfi\n"
        ),
        added_by("dh_installinit", "update-rc.d x defaults >/dev/null\ninvoke-rc.d x start\n")
        + added_by("dh_installsystemd", "deb-systemd-helper enable x.service\n"),
    ],
)
def test_a_script_without_consequence_is_no_obstacle(script: str) -> None:
    assert script_effects(HEAD + script) == ()


@pytest.mark.parametrize(
    "script",
    [
        "adduser --system x\n",
        "if [ -e /etc/x ]; then adduser x; fi\n",
        "[ -e /etc/x ] || adduser x\n",
        'if [ "$1" = configure ]; then adduser x; fi\n',
        'if [ "$1" = configure ]; then\n\tadduser x\nfi\n',
        'if [ "$1" = upgrade ]; then\n\trm /etc/x\nelse\n\tadduser x\nfi\n',
        'if [ "$1" = upgrade ] || [ ! -e /etc/x ]; then\n\tadduser x\nfi\n',
        'if [ "$1" != upgrade ]; then\n\tadduser x\nfi\n',
        'case "$1" in configure|abort) adduser x ;; esac\n',
        'case "$1" in upgrade|configure) adduser x ;; esac\n',
        'case "$1" in *) adduser x ;; esac\n',
        'case "$2" in upgrade) adduser x ;; esac\n',
        added_by("dh_installsysusers", "systemd-sysusers x.conf\n"),
        added_by("dh_installdeb_of_ours", "adduser x\n"),
        "# Automatically added by dh_installdeb/13\nadduser x\n",
        added_by("dh_installdeb", "") + "adduser x\n" + added_by("dh_installdeb", ""),
        "echo $(adduser x)\n",
        "echo `adduser x`\n",
        'x="`adduser x`"\n',
        "echo x > /etc/x\n",
        "echo x | sh\n",
        "echo x & adduser x\n",
        "true; adduser x\n",
        "cat > /etc/x <<EOF\nhi\nEOF\n",
        "f() { adduser x; }\nf\n",
        "for x in /etc/*; do :; done\n",
        "while read x; do :; done\n",
        "$COMMAND x\n",
        "command adduser x\n",
        "set -- adduser x\n",
        ". /usr/share/debconf/confmodule\n",
        "if command -v update-alternatives; then\n"
        "update-alternatives --install /usr/bin/a a /usr/bin/b 1\nfi\n",
        "update-alternatives --install /usr/bin/a a /usr/bin/b$x 1\n",
        "update-alternatives --install /usr/bin/a a /usr/bin/b 1 --slave /usr/bin/c c\n",
        "update-alternatives --install /usr/bin/a a /usr/bin/b 1 && adduser x\n",
        "update-alternatives --set a /usr/bin/b\n",
        "if true; then\n",
        "'\n",
    ],
)
def test_a_script_with_a_consequence_is_refused(script: str) -> None:
    with pytest.raises(UnclearError):
        script_effects(HEAD + script)


def test_an_alternative_is_read_with_what_follows_it() -> None:
    call = (
        "\tupdate-alternatives --quiet \\\n\t  --install /bin/nc nc /bin/nc.openbsd 50 \\\n"
        "\t  --slave /bin/netcat netcat /bin/nc.openbsd --slave /a b /c\n"
    )
    slaves = (("/bin/netcat", "netcat", "/bin/nc.openbsd"), ("/a", "b", "/c"))
    wanted = (Alternative("/bin/nc", "nc", "/bin/nc.openbsd", 50, slaves),)
    guarded = f'if [ "$1" = "configure" ]; then\n{call}fi\n'
    for text in (call, guarded, added_by("dh_installalternatives", guarded)):
        assert script_effects(HEAD + text) == wanted


@pytest.mark.parametrize("first", ["#!/usr/bin/perl", "#!/usr/bin/python3", "\x7fELF", ""])
def test_a_script_in_another_language_is_refused(first: str) -> None:
    with pytest.raises(UnclearError, match="no plain shell script"):
        script_effects(f"{first}\n")


def test_all_scripts_that_would_have_to_run_are_named(tmp_path: Path) -> None:
    postinst = {"postinst": "#!/bin/sh\nadduser x\n"}
    debs = [make_deb(tmp_path / f"{name}_1_all.deb", control=postinst) for name in "ab"]
    with pytest.raises(ImageError, match=r"(?s)a: its postinst .*adduser x.*b: its postinst"):
        unpacked(tmp_path, *debs)


def test_commands_of_a_known_package_are_linked_without_its_script(tmp_path: Path) -> None:
    loop = "for x in convert; do\n  update-alternatives --install /usr/bin/$x $x /usr/y 1\ndone\n"
    deb = make_deb(
        tmp_path / "imagemagick-6.q16_8_amd64.deb",
        [member("./usr/bin/convert-im6.q16", b"elf")],
        control={"postinst": HEAD + loop},
    )
    found = unpacked(tmp_path, deb)
    assert found["etc/alternatives/convert"].target == "/usr/bin/convert-im6.q16"
    assert found["usr/bin/convert-im6"].target == "/etc/alternatives/convert-im6"
    assert "usr/bin/compare" not in found


def test_scripts_of_removal_do_not_matter(tmp_path: Path) -> None:
    scripts = {"prerm": "#!/bin/sh\nrm -rf /x\n", "postrm": "#!/bin/sh\nrm -rf /x\n"}
    assert unpacked(tmp_path, make_deb(tmp_path / "a_1_all.deb", control=scripts))


def test_library_directories_that_ldconfig_would_have_to_read_are_refused(tmp_path: Path) -> None:
    deb = make_deb(tmp_path / "a_1_all.deb", [member("./etc/ld.so.conf.d/a.conf", b"/opt/a\n")])
    with pytest.raises(ImageError, match="ldconfig must run"):
        unpacked(tmp_path, deb)


def offering(path: Path, file: str, priority: int) -> Path:
    script = f"{HEAD}update-alternatives --install /lib/libx.so \\\n  libx.so /{file} {priority}\n"
    return make_deb(path, [member(f"./{file}", b"x")], control={"postinst": script})


def test_the_alternative_with_the_highest_priority_is_linked(tmp_path: Path) -> None:
    low = offering(tmp_path / "low_1_all.deb", "usr/lib/low.so", 10)
    high = offering(tmp_path / "high_1_all.deb", "usr/lib/high.so", 100)
    for pair in ([low, high], [high, low]):
        found = unpacked(tmp_path, *pair)
        shutil.rmtree(tmp_path / "scratch")
        assert found["usr/lib/libx.so"].target == "/etc/alternatives/libx.so"
        assert found["etc/alternatives/libx.so"].target == "/usr/lib/high.so"


@pytest.mark.parametrize(("mode", "linked"), [("auto", True), ("manual", False)])
def test_the_choice_of_the_base_is_respected(tmp_path: Path, mode: str, linked: bool) -> None:
    base = facts(alternatives={"libx.so": f"{mode}\n/lib/libx.so\n\n/lib/own.so\n50\n\n"})
    high = offering(tmp_path / "high_1_all.deb", "usr/lib/high.so", 100)
    assert ("usr/lib/libx.so" in unpacked(tmp_path, high, base=base)) is linked
    shutil.rmtree(tmp_path / "scratch")
    low = offering(tmp_path / "low_1_all.deb", "usr/lib/low.so", 10)
    assert "usr/lib/libx.so" not in unpacked(tmp_path, low, base=base)


# --- the real thing: Debian's archive, a minimal Debian and podman -------------------------------


@dataclasses.dataclass(frozen=True)
class RealBase:
    layer: Layer
    blobs: BlobDirectory
    facts: RootFilesystem


def debian_sources() -> list[Path]:
    """This machine's own sources of Debian 12; skips where it has none."""
    places = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources"))
    sources = [file for file in places if file.is_file() and file.read_text().strip()]
    if not sources or "bookworm" not in "".join(file.read_text() for file in sources):
        pytest.skip("this machine has no sources of Debian 12")
    return sources


def essential_packages() -> str:
    """What dpkg records of this machine's essential packages and of what they depend on.

    That they depend on it is left out: some of it may have been chosen among several.
    """
    stanzas = {
        one.partition("\n")[0].removeprefix("Package: "): one
        for one in Path("/var/lib/dpkg/status").read_text().strip().split("\n\n")
    }
    left = [name for name, one in stanzas.items() if "\nEssential: yes" in one]
    chosen: dict[str, str] = {}
    while left:
        name = left.pop()
        if name in stanzas and name not in chosen:
            chosen[name] = stanzas[name]
            for line in re.findall(r"^(?:Pre-)?Depends: (.*)$", stanzas[name], re.MULTILINE):
                left += re.findall(r"[a-z0-9][a-z0-9.+-]+", re.sub(r"\([^)]*\)", "", line))
    record = "\n\n".join(chosen.values()) + "\n"
    return re.sub(r"^(?:Pre-)?Depends: .*\n", "", record, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def small_debian() -> RootFilesystem:
    """The facts of a small Debian 12, made of this machine's: nothing of it could run."""
    sources = debian_sources()
    if machine() != "x86_64":
        pytest.skip("the facts are those of amd64")
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    return facts(
        status=essential_packages(),
        sources={file.name: file.read_text() for file in sources},
        keyrings={str(keyring): keyring.read_bytes()},
    )


@pytest.fixture(scope="session")
def debian_base(tmp_path_factory: pytest.TempPathFactory) -> RealBase:
    """Debian 12 with Python, made by mmdebstrap from this machine's own sources."""
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        pytest.skip("a Debian base needs root and mmdebstrap")
    folder = tmp_path_factory.mktemp("debian")
    sources = debian_sources()
    options = ["--quiet", "--variant=minbase", "--include=python3-minimal,libpython3-stdlib"]
    made = subprocess.run(
        ["mmdebstrap", *options, "bookworm", folder / "base.tar", *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"mmdebstrap cannot make a base here: {made.stderr.strip()[-300:]}")
    blobs = BlobDirectory(folder / "blobs")
    layer = base_layer(blobs, (folder / "base.tar").read_bytes())
    (folder / "base.tar").unlink()
    return RealBase(layer, blobs, probe_base([layer], blobs))


def chosen_for(base: RootFilesystem, *names: str) -> SystemPackages:
    try:
        return resolve_packages(names, base, AMD64)
    except ImageError as error:
        if "Failed to fetch" in error.message or "Could not resolve" in error.message:
            pytest.skip("Debian's archive cannot be reached")
        raise


def write_layout(folder: Path, base: RealBase, *more: tuple[Layer, BlobDirectory]) -> None:
    """An OCI layout of the base, with layers on top."""
    layers = [base.layer, *(layer for layer, _ in more)]
    config = canonical_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )
    described = descriptor_of(config, OCI_CONFIG)
    manifest, content = image_manifest(described, layers, {"title": "system"})
    with layout_sink(folder) as sink:
        for layer, blobs in ((base.layer, base.blobs), *more):
            sink.put_blob(layer.descriptor, blobs)
        sink.blobs.put_bytes(config, OCI_CONFIG)
        sink.put_manifest(manifest, content)
        sink.tag(manifest, content, "v1")


@pytest.fixture(scope="module")
def image_with_libraries(
    debian_base: RealBase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The base with a layer of libraries and commands on it; and the layer's blob directory."""
    folder = tmp_path_factory.mktemp("system")
    names = ("libgomp1", "libglib2.0-0", "libgl1", "curl", "libopenblas0", "less")
    chosen = chosen_for(debian_base.facts, *names)
    scratch = folder / "scratch"
    scratch.mkdir()
    blobs = BlobDirectory(folder / "blobs")
    system = write_layer(
        package_entries(chosen, debian_base.facts, scratch),
        blobs,
        codec_named("zstd"),
        kind="system",
        title="system packages",
        epoch=DEFAULT_EPOCH,
    )
    write_layout(folder / "image", debian_base, (system, blobs))
    yield f"oci:{folder}/image:v1", folder
    shutil.rmtree(scratch)


@pytest.mark.slow
def test_libraries_load_without_a_run_of_ldconfig(
    podman: list[str], image_with_libraries: tuple[str, Path]
) -> None:
    libraries = ("libGL.so.1", "libgomp.so.1", "libglib-2.0.so.0", "libblas.so.3", "liblapack.so.3")
    probe = f"import ctypes; [ctypes.CDLL(name) for name in {libraries}]; print('loaded')"
    done = run(podman, "--rm", image_with_libraries[0], "python3", "-c", probe)
    assert done.stdout.strip() == "loaded"


@pytest.mark.slow
def test_commands_run_and_alternatives_are_linked(
    podman: list[str], image_with_libraries: tuple[str, Path]
) -> None:
    links = "/usr/bin/pager /usr/lib/x86_64-linux-gnu/libblas.so.3"
    show = f"curl --version | head -1; readlink -f {links}"
    done = run(podman, "--rm", image_with_libraries[0], "sh", "-c", show)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("curl 7.")
    assert lines[1].endswith("/less")
    assert "openblas" in lines[2]


@pytest.mark.slow
def test_directories_of_the_base_keep_their_modes(
    podman: list[str], image_with_libraries: tuple[str, Path]
) -> None:
    show = ("stat", "-c", "%a %F", "/var/mail", "/root", "/lib")
    done = run(podman, "--rm", image_with_libraries[0], *show)
    assert done.stdout.splitlines() == ["2775 directory", "700 directory", "777 symbolic link"]


def test_the_same_packages_give_the_same_layer(
    small_debian: RootFilesystem, tmp_path: Path
) -> None:
    chosen = chosen_for(small_debian, "less", "libgomp1")
    assert chosen == chosen_for(small_debian, "libgomp1", "less")
    digests = set()
    for number in (1, 2):
        scratch = tmp_path / f"scratch-{number}"
        scratch.mkdir()
        entries = package_entries(chosen, small_debian, scratch)
        layer = write_layer(
            entries,
            BlobDirectory(tmp_path),
            codec_named("gzip"),
            kind="system",
            title="system packages",
            epoch=DEFAULT_EPOCH,
        )
        digests.add(layer.digest)
    assert len(digests) == 1


def test_a_package_that_must_run_a_script_is_refused_by_name(
    small_debian: RootFilesystem, tmp_path: Path
) -> None:
    chosen = chosen_for(small_debian, "ca-certificates")
    with pytest.raises(ImageError, match=r"ca-certificates: its postinst .*update-ca-cert"):
        package_entries(chosen, small_debian, tmp_path)


@pytest.mark.slow
def test_packages_for_another_processor_can_be_had(
    small_debian: RootFilesystem, tmp_path: Path
) -> None:
    arm = dataclasses.replace(
        small_debian,
        status=small_debian.status.replace("Architecture: amd64", "Architecture: arm64"),
        directories=small_debian.directories | {"usr/lib/aarch64-linux-gnu"},
    )
    try:
        chosen = resolve_packages(["libgomp1"], arm, ARM64)
    except ImageError as error:
        if "Failed to fetch" not in error.message:
            raise
        pytest.skip("Debian's archive cannot be reached")
    entries = package_entries(chosen, arm, tmp_path)
    library = next(entry for entry in entries if entry.path.endswith("libgomp.so.1.0.0"))
    assert library.path.startswith("usr/lib/aarch64-linux-gnu/")
    assert library.file is not None
    machine = struct.unpack("<H", Path(os.fsdecode(library.file)).read_bytes()[18:20])[0]
    assert machine == 183  # EM_AARCH64


@pytest.mark.slow
def test_a_bento_gets_the_packages_that_it_asks_for(
    debian_base: RealBase, podman: list[str], tmp_path: Path
) -> None:
    write_layout(tmp_path / "base", debian_base)
    bento = write_bento(tmp_path / "bento")
    text = (bento.directory / "bento.yaml").read_text()
    wanted = "apt-get install -q -y -o Dpkg::Options::=--force-confdef libgomp1"
    (bento.directory / "bento.yaml").write_text(
        text.replace("  commands: []\n", f"  commands:\n  - {wanted}\n")
    )
    options = ImageOptions(base=f"oci:{tmp_path}/base", cache=tmp_path / "cache")
    chosen_for(debian_base.facts, "libgomp1")
    image = build_image(bento, f"oci:{tmp_path}/out", options)
    assert [layer.kind for layer in image.layers] == [
        *("base", "system", "dependencies", "model", "source")
    ]
    (sbom,) = read_attachments(f"oci:{tmp_path}/out", SBOM_TYPE)
    assert b"pkg:deb/debian/libgomp1@" in sbom
    command = ("python3", "-c", "import ctypes; ctypes.CDLL('libgomp.so.1'); print('loaded')")
    done = run(podman, "--rm", "--entrypoint", "", f"oci:{tmp_path}/out:v1", *command)
    assert done.stdout.strip() == "loaded"
    (bento.directory / "src/service.py").write_text("# another service\n")
    again = build_image(load_bento(bento.directory), f"oci:{tmp_path}/again", options)
    assert {layer.kind: layer.origin for layer in again.layers}["system"] == "reused"
