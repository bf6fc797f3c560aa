"""What has got past scanners of models, or could: each is a small pickle that nobody loads."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest
from planted_pickles import SYSTEM, call, content, looked, names, scanned, stack_global, text, whole

GLOBAL = b"cos\nsystem\n"
MEMO = whole(
    text("os")
    + b"\x94"
    + text("system")
    + b"\x94"
    + b"00"
    + b"h\x00h\x01\x93"
    + text("id")
    + b"\x85R"
)
LONG_MEMO = whole(
    text("os") + b"r\xff\xff\x00\x00" + text("system") + b"p7\n00" + b"j\xff\xff\x00\x00g7\n\x93"
)
FOUND = {
    "protocol 0": GLOBAL + b"(S'id'\ntR.",
    "an instance": b"(S'id'\nios\nsystem\n.",
    "an object": whole(b"(" + GLOBAL + text("id") + b"o", 2),
    "a new object": whole(GLOBAL + text("id") + b"\x85\x81", 2),
    "a new object with keywords": whole(GLOBAL + text("id") + b"\x85}\x92"),
    "names from the memo": MEMO,
    "names from far in the memo": LONG_MEMO,
    "a copy of a name": whole(
        text("system")
        + text("os")
        + b"2"
        + b"00"
        + text("os")
        + b"0"
        + text("os")
        + text("system")
        + b"\x93"
    ),
    "cut off before its end": SYSTEM[:-1],
    "broken behind the call": SYSTEM[:-1] + b"\xff\xff",
    "behind a first pickle": pickle.dumps([1, 2]) + SYSTEM,
    "behind a first pickle of protocol 0": b"I1\n." + GLOBAL + b"(S'id'\ntR.",
    "in a frame whose size is wrong": b"\x80\x04\x95" + struct.pack("<Q", 3) + SYSTEM[2:],
    "bytes in bytes": pickle.dumps({"state": SYSTEM}),
    "bytes in bytes in bytes": pickle.dumps({"state": pickle.dumps([zlib.compress(SYSTEM)])}),
    "in Python 2's words": whole(b"cposix\nsystem\n", 2).replace(b"posix", b"os"),
    "zlib": zlib.compress(SYSTEM),
    "gzip": gzip.compress(SYSTEM),
    "gzip that breaks off": gzip.compress(SYSTEM + bytes(100))[:-9],
    "two gzips": gzip.compress(pickle.dumps(1)) + gzip.compress(SYSTEM),
    "bzip2": bz2.compress(SYSTEM),
    "xz": lzma.compress(SYSTEM),
    "lzma": lzma.compress(SYSTEM, lzma.FORMAT_ALONE),
}


@pytest.mark.parametrize("how", FOUND)
@pytest.mark.parametrize("name", ["model.pkl", "weights.txt", "data.json"])
def test_a_call_of_the_system_is_found_however_it_is_written(
    how: str, name: str, tmp_path: Path
) -> None:
    report = scanned(tmp_path, FOUND[how], name)
    assert not report.passed
    assert "os.system" in names(report, "dangerous")


DANGEROUS = {
    "numpy __builtins__": "numpy.__builtins__",
    "numpy.testing._private.utils runstring": "numpy.testing._private.utils.runstring",
    "numpy.f2py.crackfortran myeval": "numpy.f2py.crackfortran.myeval",
    "numpy.core _ufunc_reconstruct": "numpy.core._ufunc_reconstruct",
    "numpy._core _ufunc_reconstruct": "numpy._core._ufunc_reconstruct",
    "sklearn.utils os.system": "sklearn.utils.os.system",
    "sklearn.datasets load_files": "sklearn.datasets.load_files",
    "scipy.stats._distn_infrastructure rv_frozen": "scipy.stats._distn_infrastructure.rv_frozen",
    "scipy.stats._continuous_distns norm_gen": "scipy.stats._continuous_distns.norm_gen",
    "builtins eval": "builtins.eval",
    "builtins getattr": "builtins.getattr",
    "operator methodcaller": "operator.methodcaller",
    "operator attrgetter": "operator.attrgetter",
    "functools reduce": "functools.reduce",
    "torch.hub load": "torch.hub.load",
    "torch.fx.graph_module reduce_graph_module": "torch.fx.graph_module.reduce_graph_module",
    "pickle loads": "pickle.loads",
    "joblib load": "joblib.load",
    "marshal loads": "marshal.loads",
    "importlib import_module": "importlib.import_module",
    "runpy run_path": "runpy.run_path",
    "pty spawn": "pty.spawn",
    "ctypes CDLL": "ctypes.CDLL",
    "socket create_connection": "socket.create_connection",
    "shutil rmtree": "shutil.rmtree",
    "pip main": "pip.main",
    "pandas read_pickle": "pandas.read_pickle",
    "logging.config dictConfig": "logging.config.dictConfig",
    "asyncio.unix_events _UnixSubprocessTransport._start": (
        "asyncio.unix_events._UnixSubprocessTransport._start"
    ),
    "timeit timeit": "timeit.timeit",
    "_io FileIO": "_io.FileIO",
}


@pytest.mark.parametrize("wanted", DANGEROUS)
def test_what_runs_programs_or_reaches_files_is_dangerous(wanted: str, tmp_path: Path) -> None:
    module, name = wanted.split()
    report = scanned(tmp_path, whole(call(stack_global(module, name), text("x"))))
    assert names(report) == {DANGEROUS[wanted]}
    assert [one.severity.value for one in report.findings] == ["dangerous"]


def test_python_2s_names_are_those_that_python_3_imports(tmp_path: Path) -> None:
    report = scanned(tmp_path, whole(b"c__builtin__\neval\n", 2))
    assert names(report) == {"builtins.eval"}
    # From protocol 3 on Python does not translate them.
    report = scanned(tmp_path, whole(b"c__builtin__\neval\n", 3))
    assert names(report) == {"__builtin__.eval"}


CODEC = call(stack_global("_codecs", "encode"), text("bf"), text("rot13"))
PUZZLES = {
    "a name that it makes": whole(
        call(stack_global("builtins", "str"), text("os")) + text("system") + b"\x93"
    ),
    "a text by a codec": whole(CODEC),
    "a call of a result": whole(call(call(stack_global("functools", "partial"), text("x")))),
    "an extension": whole(b"\x82\x01"),
    "a change of a class": whole(
        stack_global("sklearn.svm._classes", "SVC") + b"}" + text("fit") + text("x") + b"sb"
    ),
    "a change of a module's table": whole(
        stack_global("collections", "OrderedDict") + text("a") + text("b") + b"s"
    ),
}


@pytest.mark.parametrize("how", PUZZLES)
def test_what_cannot_be_followed_is_dangerous(how: str, tmp_path: Path) -> None:
    report = scanned(tmp_path, PUZZLES[how])
    assert any("model.pkl: it " in name for name in names(report, "dangerous")), report.findings


def test_a_class_that_is_harmless_to_name_is_not_to_be_called(tmp_path: Path) -> None:
    assert scanned(tmp_path, whole(stack_global("builtins", "type"))).passed
    made = call(stack_global("builtins", "type"), text("X"), b")", b"}")
    assert names(scanned(tmp_path, whole(made)), "unknown") == {"builtins.type"}


def wrapped(shape: bytes, kind: str = "u1", extra: bytes = b"") -> bytes:
    """joblib's place holder for an array, up to the opcode that builds it."""
    dtype = call(stack_global("numpy", "dtype"), text(kind), b"\x89", b"\x88")
    return (
        stack_global("joblib.numpy_pickle", "NumpyArrayWrapper")
        + b")\x81}("
        + text("shape") + shape
        + text("order") + text("C")
        + text("dtype") + dtype
        + text("allow_mmap") + b"\x88"
        + text("numpy_array_alignment_bytes") + b"N"
        + extra
        + b"ub"
    )  # fmt: skip


def test_what_joblib_skips_and_pickle_runs_is_found(tmp_path: Path) -> None:
    """The bytes of the array are opcodes for everybody but joblib."""
    hidden = b"0" + GLOBAL + text("id") + b"\x85R."
    shape = b"K" + bytes([len(hidden)]) + b"\x85"
    report = scanned(tmp_path, b"\x80\x04" + wrapped(shape) + hidden + b".")
    assert "os.system" in names(report)


def test_what_pickle_never_reaches_and_joblib_runs_is_found(tmp_path: Path) -> None:
    """The bytes of the array end it for everybody but joblib."""
    behind = b"0" + GLOBAL + text("id") + b"\x85R."
    report = scanned(tmp_path, b"\x80\x04" + wrapped(b"K\x01\x85") + b"." + behind)
    assert "os.system" in names(report)


def test_what_joblib_reads_behind_a_frame_is_found(tmp_path: Path) -> None:
    """Within a frame joblib takes arrays from behind it, and goes on in the frame afterwards."""
    inside = wrapped(b"K\x09\x85") + b"0" + GLOBAL + text("id") + b"\x85R."
    data = b"\x80\x04\x95" + struct.pack("<Q", len(inside)) + inside + bytes(9)
    assert "os.system" in names(scanned(tmp_path, data))


@pytest.mark.parametrize("begin", [b"\x80\x04", b""])
@pytest.mark.parametrize("end", [bytes(300), b""])
def test_what_only_the_reader_in_c_sees_behind_a_frame_is_told(
    begin: bytes, end: bytes, tmp_path: Path
) -> None:
    """It drops the rest of a frame that an opcode reaches over; scanners read straight on."""
    hidden = text("os") + text("system") + b"\x93" + text("id") + b"\x85R."
    # Straight on: a text of 256 bytes or more. In C: none, and then what it hides.
    size = b"\x00\x01" + b"\x00\x00" + b"\x00\x00"
    data = begin + b"\x95" + struct.pack("<Q", 3) + b"X" + size + hidden + end
    asked: list[tuple[str, str]] = []

    class Recording(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            asked.append((module, name))
            raise pickle.UnpicklingError

    with pytest.raises(pickle.UnpicklingError):
        Recording(io.BytesIO(data)).load()
    assert asked == [("os", "system")]
    report = scanned(tmp_path, data)
    assert any("over the end of a frame" in one for one in names(report, "dangerous"))


@pytest.mark.parametrize(
    "state",
    [
        wrapped(b"K\x01\x85", "O"),
        wrapped(b"J\xff\xff\xff\xff\x85"),
        wrapped(b"N"),
        wrapped(b"K\x01\x85", "f99999999999"),
        wrapped(b"K\x01\x85", extra=b"K\x01K\x01"),
    ],
)
def test_an_array_of_unknown_size_is_no_reason_to_stop_looking(
    state: bytes, tmp_path: Path
) -> None:
    report = scanned(tmp_path, b"\x80\x04" + state + bytes(5))
    assert not report.passed


def test_an_object_that_becomes_joblibs_place_holder_unseen_is_told(tmp_path: Path) -> None:
    body = (
        stack_global("collections", "OrderedDict") + b")\x81N}" + text("__class__")
        + stack_global("joblib.numpy_pickle", "NumpyArrayWrapper") + b"s\x86b"
    )  # fmt: skip
    assert any("hides where joblib" in name for name in names(scanned(tmp_path, whole(body))))


def torch_zip(data: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", bytes(64))
    return file.getvalue()


def tarred(data: bytes, name: str = "pickle") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def object_array(data: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"shape": (1,), "fortran_order": False, "descr": "|O"}
    )
    return file.getvalue() + data


PLAIN, EMPTY = torch_zip(SYSTEM), torch_zip(b"")
CENTRAL, LOCAL = b"PK\x01\x02\x14\x03\x14\0", b"PK\x03\x04\x14\0"
PACKED = {
    "torch": PLAIN,
    "torch, deflated": torch_zip(SYSTEM, zipfile.ZIP_DEFLATED),
    "torch, bzip2": torch_zip(SYSTEM, zipfile.ZIP_BZIP2),
    "torch, lzma": torch_zip(SYSTEM, zipfile.ZIP_LZMA),
    "a wrong checksum": PLAIN.replace(zlib.crc32(SYSTEM).to_bytes(4, "little"), b"\1\2\3\4"),
    "marked as encrypted": PLAIN.replace(CENTRAL + b"\0\0", CENTRAL + b"\1\0").replace(
        LOCAL + b"\0\0", LOCAL + b"\1\0"
    ),
    "behind other bytes": b"#!/bin/sh\n" + PLAIN,
    "without a directory": PLAIN[: PLAIN.index(CENTRAL)],
    "with a directory of another file": PLAIN[: PLAIN.index(CENTRAL)]
    + EMPTY[EMPTY.index(CENTRAL) :],
    "tar": tarred(SYSTEM),
    "tar in gzip": gzip.compress(tarred(SYSTEM)),
    "zip in tar in zip": torch_zip(tarred(PLAIN)),
    "an array of objects": object_array(SYSTEM),
    "a pickle before a zip": pickle.dumps(1) + PLAIN,
    "torch before zip files": b"".join(
        pickle.dumps(one, 2)
        for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    ) + SYSTEM + pickle.dumps([]) + bytes(64),
}  # fmt: skip


@pytest.mark.parametrize("how", PACKED)
def test_what_is_packed_is_looked_into(how: str, tmp_path: Path) -> None:
    report = scanned(tmp_path, PACKED[how], "model.bin")
    assert "os.system" in names(report, "dangerous"), report.findings


def test_arrays_in_archives_are_looked_into(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", object_array(SYSTEM))
    assert "os.system" in names(scanned(tmp_path, file.getvalue(), "a.npz"))


@pytest.mark.parametrize("name", ["../../evil.py", "/etc/passwd", "a\\..\\..\\b", "C:/x"])
def test_archives_that_lead_out_of_their_folder_are_told(name: str, tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")
    for number, data in enumerate((file.getvalue(), tarred(b"x", name))):
        report = scanned(tmp_path / str(number), data, "data.bin")
        assert [one.severity.value for one in report.findings] == ["dangerous"]


def test_a_format_that_is_not_looked_into_is_unknown(tmp_path: Path) -> None:
    report = scanned(tmp_path, b"\x04\x22\x4d\x18" + bytes(20), "model.lz4")
    assert "lz4" in report.findings[0].why
    assert not report.passed


def test_bytes_of_numbers_are_no_pickles() -> None:
    """Of a million such files a few begin as pickles do; nothing is told of those either."""
    state = np.random.default_rng(7)
    for number in range(3_000):
        data = (b"\x80" if number % 2 else b"") + state.bytes(200)
        if data[0] == 0x80 and data[1] <= 5:
            continue
        assert looked(data) == []


@pytest.mark.parametrize(
    "requirements", [b"cloudpickle\nmlflow\nnumpy\n", b"channels:\n- defaults\n", b"import os\n"]
)
def test_texts_are_no_pickles(requirements: bytes, tmp_path: Path) -> None:
    assert scanned(tmp_path, requirements, "requirements.txt").findings == ()


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_joblibs_own_files_raise_no_alarm(compress: object, tmp_path: Path) -> None:
    kept = {
        "objects": np.array([1, "x", None], dtype=object),
        "records": np.zeros(3, dtype=[("a", "i4"), ("b", "f8"), ("o", "O")]),
        "times": np.zeros(3, dtype="M8[ns]"),
        "texts": np.array(["a", "bb"]),
        "none": np.zeros((0, 3)),
        "one": np.array(5.0),
        "columns": np.asfortranarray(np.ones((30, 20))),
        "more objects": np.array([{"a": (1, 2)}, [np.float64(3)]], dtype=object),
    }
    file = tmp_path / "kept.joblib"
    joblib.dump(kept, file, compress=compress)
    report = scanned(tmp_path, file.read_bytes(), "kept.joblib")
    assert report.findings == ()


def test_content_says_what_a_nested_pickle_is(tmp_path: Path) -> None:
    """Bytes that only begin like something are no finding."""
    data = whole(
        content(b"\x1f\x8bnot gzip") + content(b"BZhnot") + content(b"\x80\x04.") + b"000N"
    )
    assert scanned(tmp_path, data).findings == ()
