"""Archives that nobody made by exporting a bento: refused with the reason, and nothing is left."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kfp_bento.runtime.bentos import ImportOptions, import_bento
from kfp_bento.runtime.errors import BentoError

AS_IT_IS = ImportOptions(lock=False)

BENTO = b"name: wine\nversion: v1\nservice: service:Wine\nmodels: []\nbentoml_version: 1.4.39\n"


def plain(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in (plain("bento.yaml", BENTO), *members):
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A raw tar header with a right checksum, whatever it claims."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124 : 124 + len(size)] = size
    block[136:148], block[156:157] = b"00000000000\0", kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def raw_tar(*blocks: bytes) -> bytes:
    whole = tar_of()
    return whole[:1024] + b"".join(blocks) + bytes(10240)


def zip_of(
    *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as zipped, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice
        for name, content in (("bento.yaml", BENTO), *members):
            zipped.writestr(name, content)
    return packed.getvalue()


def zip_entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def encrypted_zip() -> bytes:
    packed = bytearray(zip_of(("x", b"x")))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.rindex(mark) + flags] |= 1
    return bytes(packed)


def zip_that_lies_about_sizes() -> bytes:
    """Its list says ten bytes; what is packed are many more."""
    packed = bytearray(zip_of(("x", bytes(1 << 20))))
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = packed.rindex(mark) + at
        packed[start : start + 4] = struct.pack("<L", 10)
    return bytes(packed)


def zip_with_an_endless_list() -> bytes:
    packed = bytearray(zip_of())
    at = packed.rindex(b"PK\x05\x06") + 12
    packed[at : at + 4] = struct.pack("<L", 0x7FFFFFFF)
    return bytes(packed)


def zip_with_two_names() -> bytes:
    """Where the member lies it has another name than in the list."""
    packed = bytearray(zip_of(("inside", b"x")))
    at = packed.index(b"inside")
    packed[at : at + 6] = b"..//up"
    return bytes(packed)


def bomb(compress: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    """Many small members, which are far more together than an archive of this size may hold."""

    def make() -> bytes:
        members = (plain(str(number), bytes(100_000)) for number in range(100))
        return compress(tar_of(*members))

    return make


def chain_of_long_names() -> bytes:
    long = header(b"././@LongLink", b"%011o\0" % 5, b"L") + b"name\0".ljust(512, b"\0")
    return raw_tar(long * 3000, header(b"x", b"00000000000\0"))


def sparse() -> bytes:
    info = tarfile.TarInfo("x")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": "1",
    }
    info.size = 512
    return tar_of((info, b"0\n".ljust(512, b"\0")))


def base256(number: int) -> bytes:
    return number.to_bytes(12, "big", signed=True) if number < 0 else b"\x80" + number.to_bytes(11)


LINK = special("link", tarfile.SYMTYPE, "folder")
ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "traversal": (lambda: tar_of(plain("../up")), "leaves the directory"),
    "hidden traversal": (lambda: tar_of(plain("a/../../up")), "leaves the directory"),
    "absolute": (lambda: tar_of(plain("/tmp/kfp-bento-up")), "leaves the directory"),
    "backslashes": (lambda: tar_of(plain("..\\up")), "backslashes"),
    "terminal": (lambda: tar_of(plain("a\x1b[2Jb")), "control characters"),
    "no UTF-8": (lambda: raw_tar(header(b"\xff\xfe", b"00000000000\0")), "no UTF-8"),
    "long name": (lambda: tar_of(plain("n" * 300)), "too long"),
    "long path": (lambda: tar_of(plain("/".join(["n" * 100] * 11))), "too long"),
    "deep": (lambda: tar_of(plain("/".join("d" * 70))), "nested too deeply"),
    "link to outside": (
        lambda: tar_of(special("up", tarfile.SYMTYPE, "../../etc/passwd")),
        "link that leaves",
    ),
    "absolute link": (
        lambda: tar_of(special("up", tarfile.SYMTYPE, "/etc/passwd")),
        "link that leaves",
    ),
    "link to a link": (
        lambda: tar_of(
            special("one", tarfile.SYMTYPE, "two"), special("two", tarfile.SYMTYPE, "one")
        ),
        "to what is no file",
    ),
    "written through a link": (
        lambda: tar_of(special("out", tarfile.SYMTYPE, "/tmp"), plain("out/kfp-bento-up")),
        "goes through a link",
    ),
    "written over a link": (
        lambda: tar_of(special("bento", tarfile.SYMTYPE, "bento.yaml"), plain("bento")),
        "twice",
    ),
    "hard link": (lambda: tar_of(special("hard", tarfile.LNKTYPE, "bento.yaml")), "hard link"),
    "hard link out": (lambda: tar_of(special("h", tarfile.LNKTYPE, "/etc/passwd")), "hard link"),
    "pipe": (lambda: tar_of(special("p", tarfile.FIFOTYPE)), "device"),
    "character device": (lambda: tar_of(special("c", tarfile.CHRTYPE)), "device"),
    "block device": (lambda: tar_of(special("b", tarfile.BLKTYPE)), "device"),
    "sparse file": (sparse, "sparse"),
    "the same name twice": (lambda: tar_of(plain("a"), plain("a")), "twice"),
    "the same name in another spelling": (lambda: tar_of(plain("a"), plain("./a")), "twice"),
    "a file as a folder": (lambda: tar_of(plain("a"), plain("a/b")), "goes through a file"),
    "a folder as a file": (lambda: tar_of(plain("a/b"), plain("a")), "twice"),
    "absurd size": (lambda: raw_tar(header(b"x", base256(1 << 80))), "absurd"),
    "negative size": (lambda: raw_tar(header(b"x", base256(-1024))), "backwards|absurd"),
    "endless header": (lambda: raw_tar(header(b"x", b"77777777777\0", b"x")), "absurd size"),
    "endless long name": (lambda: raw_tar(header(b"x", b"77777777777\0", b"L")), "absurd size"),
    "long names without end": (chain_of_long_names, "no archive that is known, or is damaged"),
    "gzip bomb": (bomb(lambda data: gzip.compress(data, 1)), "absurd"),
    "xz bomb": (bomb(lambda data: lzma.compress(data, preset=0)), "absurd"),
    "bzip2 bomb": (bomb(lambda data: bz2.compress(data, 1)), "absurd"),
    "something after the end": (lambda: tar_of() + tar_of(plain("../up")), "after its end"),
    "no end": (lambda: tar_of()[:1024], "ends too early"),
    "cut in a file": (lambda: tar_of(plain("x", bytes(5000)))[:4000], "too early"),
    "cut gzip": (lambda: gzip.compress(tar_of())[:-20], "damaged"),
    "cut xz": (lambda: lzma.compress(tar_of())[:-20], "damaged"),
    "cut bzip2": (lambda: bz2.compress(tar_of())[:-20], "damaged"),
    "damaged header": (lambda: tar_of()[:1024] + b"\1" * 512 + bytes(1024), "damaged"),
    "archive in an archive": (lambda: gzip.compress(gzip.compress(tar_of())), "damaged"),
    "no archive": (lambda: b"#!/bin/sh\n" * 100, "damaged"),
    "nothing": (lambda: b"", "damaged"),
    "zip: traversal": (lambda: zip_of(("../up", b"x")), "leaves the directory"),
    "zip: absolute": (lambda: zip_of(("/tmp/up", b"x")), "leaves the directory"),
    "zip: name with NUL": (lambda: zip_of(("a", b"x")).replace(b"a", b"\0"), "control"),
    "zip: twice": (lambda: zip_of(("a", b"x"), ("a", b"y")), "twice"),
    "zip: link out": (
        lambda: zip_of((zip_entry("up", stat.S_IFLNK | 0o777), b"../../etc/passwd")),
        "link that leaves",
    ),
    "zip: through a link": (
        lambda: zip_of((zip_entry("out", stat.S_IFLNK | 0o777), b"/tmp"), ("out/up", b"x")),
        "goes through a link",
    ),
    "zip: device": (lambda: zip_of((zip_entry("c", stat.S_IFCHR | 0o666), b"")), "device"),
    "zip: encrypted": (encrypted_zip, "encrypted"),
    "zip: odd method": (lambda: zip_of(("x", b"x"), method=zipfile.ZIP_BZIP2), "method"),
    "zip: bomb": (lambda: zip_of(*((str(n), bytes(100_000)) for n in range(100))), "absurd"),
    "zip: lies about sizes": (zip_that_lies_about_sizes, "damaged"),
    "zip: endless list": (zip_with_an_endless_list, "absurd"),
    "zip: two names": (zip_with_two_names, "damaged"),
    "no bento": (lambda: gzip.compress(b"".join([tar_of()[512:], b""])), "damaged|no bento.yaml"),
}


@pytest.fixture(autouse=True)
def _little_is_absurd_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfp_bento.runtime.bentos.archive_tree.SMALL", 5 << 20)


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    make, reason = ARCHIVES[name]
    given = tmp_path / "given" / "some.bento"
    given.parent.mkdir()
    given.write_bytes(make())
    with pytest.raises(BentoError, match=reason) as refusal:
        import_bento(str(given), tmp_path / "to" / "bento", AS_IT_IS)
    assert refusal.value.message.isprintable()
    assert refusal.value.hint
    assert list((tmp_path / "to").iterdir()) == []
    assert sorted(one.name for one in tmp_path.iterdir()) == ["given", "to"]


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfp_bento.runtime.bentos.archive_tree.MOST_MEMBERS", 50)
    given = tmp_path / "many.tar"
    given.write_bytes(tar_of(*(plain(str(number)) for number in range(50))))
    with pytest.raises(BentoError, match="more than 50 entries"):
        import_bento(str(given), tmp_path / "bento", AS_IT_IS)


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_names_that_differ_in_case_only_stay_two(
    pack: Callable[..., bytes], tmp_path: Path
) -> None:
    names = ("README.md", "readme.md")
    members = [plain(name, name.encode()) if pack is tar_of else (name, name) for name in names]
    given = tmp_path / "case"
    given.write_bytes(pack(*members))
    import_bento(str(given), tmp_path / "bento", AS_IT_IS)
    for name in names:
        assert (tmp_path / "bento" / name).read_text() == name


def test_a_link_to_a_file_of_the_archive_stays_one(tmp_path: Path) -> None:
    given = tmp_path / "link.tar"
    link = special("src/same.yaml", tarfile.SYMTYPE, "../bento.yaml")
    given.write_bytes(tar_of(link))
    import_bento(str(given), tmp_path / "bento", AS_IT_IS)
    assert (tmp_path / "bento/src/same.yaml").read_bytes() == BENTO


def test_no_mode_but_the_executable_bit_comes_along(tmp_path: Path) -> None:
    info, content = plain("run.sh")
    info.mode = 0o6777
    given = tmp_path / "modes.tar"
    given.write_bytes(tar_of((info, content), plain("plain")))
    import_bento(str(given), tmp_path / "bento", AS_IT_IS)
    ours = tmp_path / "new"
    ours.touch()
    mode = (tmp_path / "bento/run.sh").stat().st_mode & 0o7777
    assert mode & 0o7000 == 0
    assert mode & 0o666 == ours.stat().st_mode & 0o666
    assert mode & 0o100
    assert not (tmp_path / "bento/plain").stat().st_mode & 0o111
