"""The `host` base: this machine's own Python as a layer."""

from __future__ import annotations

import marshal
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from handmade import MINOR, open_layer

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.images.base.host import host_base
from kfp_bento.runtime.images.cache.local import LayerBuilder, LayerCache
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.image import Layer, Platform, parse_platform
from kfp_bento.runtime.images.oci.layers import codec_named
from kfp_bento.runtime.images.python.bytecode import compile_source, compile_tree

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the host base is made on Linux only"
)


def make(folder: Path, cache: Path | None = None) -> Layer:
    return host_base(MINOR, parse_platform(), builder(folder, cache))[0]


def builder(folder: Path, cache: Path | None = None) -> LayerBuilder:
    kept = LayerCache(cache) if cache else None
    return LayerBuilder(BlobDirectory(folder), codec_named("zstd"), 1, kept, lambda sentence: None)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Layer]:
    folder = tmp_path_factory.mktemp("host")
    return folder, make(folder)


@pytest.fixture
def archive(layer: tuple[Path, Layer]) -> tarfile.TarFile:
    return open_layer(*layer)


def test_the_same_machine_gives_the_same_layer_and_makes_it_once(
    layer: tuple[Path, Layer], tmp_path: Path
) -> None:
    first = make(tmp_path / "one", tmp_path / "cache")
    second = make(tmp_path / "two", tmp_path / "cache")
    assert (first.origin, second.origin) == ("built", "reused")
    assert first.digest == second.digest == layer[1].digest


def test_it_is_laid_out_like_the_official_python_image(archive: tarfile.TarFile) -> None:
    names = set(archive.getnames())
    assert {f"usr/local/bin/python{MINOR}", f"usr/local/lib/python{MINOR}/os.py"} <= names
    assert {"usr/bin/bash", "usr/bin/env", "usr/bin/sh", "etc/passwd", "etc/group"} <= names
    assert archive.getmember("bin").linkname == "usr/bin"
    assert archive.getmember("tmp").mode == 0o1777
    assert archive.getmember("usr/local/bin/python3").linkname == f"python{MINOR}"


def test_it_leaves_out_tests_installers_and_site_packages(archive: tarfile.TarFile) -> None:
    unwanted = {"test", "tests", "idlelib", "ensurepip", "site-packages", "tkinter"}
    found = {x for x in archive.getnames() if unwanted & set(x.split("/"))}
    assert found == set()
    assert not [x for x in archive.getnames() if x.endswith((".a", ".o"))]


def test_everything_in_it_has_a_directory_above(archive: tarfile.TarFile) -> None:
    members = {member.name: member for member in archive.getmembers()}
    for name in members:
        parent = name.rpartition("/")[0]
        assert not parent or members[parent].isdir(), name


def test_it_runs_by_itself(archive: tarfile.TarFile, tmp_path: Path) -> None:
    # Our own archive; Python 3.11.2 has no filters and trusts it anyway.
    archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
    archive.extractall(tmp_path)
    probe = "import ssl, sqlite3, ctypes, lzma, bz2, decimal, sys; print(sys.prefix)"
    chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if chroot is None:
        pytest.skip("chroot is not installed")
    command = [chroot, tmp_path, f"/usr/local/bin/python{MINOR}", "-c", probe]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    if "Operation not permitted" in done.stderr:
        pytest.skip("only root can change the root directory")
    assert (done.returncode, done.stdout.strip()) == (0, "/usr/local"), done.stderr


def test_another_python_is_refused(bento: Bento, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"has Python .*, but the bento was built for 3\.8"):
        host_base("3.8", parse_platform(), builder(tmp_path))


def test_another_platform_is_refused(bento: Bento, tmp_path: Path) -> None:
    other = {"amd64": "arm64", "arm64": "amd64"}[parse_platform().architecture]
    with pytest.raises(ImageError, match=f"not {Platform('linux', other)}"):
        build_image(
            bento, f"oci:{tmp_path}/out", ImageOptions(base="host", platform=f"linux/{other}")
        )


@pytest.mark.parametrize("change", [{"sys.platform": "darwin"}, {"libc": ("", "")}])
def test_without_linux_and_glibc_it_says_so(
    bento: Bento, tmp_path: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "libc" in change:
        monkeypatch.setattr("platform.libc_ver", lambda *_: change["libc"])
    else:
        monkeypatch.setattr("kfp_bento.runtime.images.base.host.sys.platform", "darwin")
    with pytest.raises(ImageError, match="Linux with glibc only"):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base="host"))


def test_bytecode_does_not_depend_on_what_else_is_loaded() -> None:
    source = (
        b"def quux(plugh):\n    return plugh in {'xyzzy', None, 'frotz'} or 'fnord', ('a', 1.5)\n"
    )
    first = compile_source(source, "/x.py")
    # Names that live elsewhere too: marshal would mark them as shared without our care.
    elsewhere = [sys.intern(name) for name in ("quux", "plugh", "xyzzy", "frotz", "fnord")]
    assert compile_source(source, "/x.py") == first
    assert first is not None and elsewhere
    names: dict[str, object] = {}
    exec(marshal.loads(first[16:]), names)
    assert callable(names["quux"])


def test_sources_that_cannot_be_parsed_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("x = 1\n")
    (tmp_path / "old.py").write_text("print 'hello'\n")
    (tmp_path / "binary.py").write_bytes(b"\0\xff")
    assert compile_tree(tmp_path, "/app") == 1


def test_a_compiler_that_cannot_write_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("x = 1\n")
    (tmp_path / "__pycache__").write_text("in the way")
    with pytest.raises(OSError, match="exists"):
        compile_tree(tmp_path, "/app")
