"""Requirements and wheels made to do harm: refused with the reason, or harmless."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import INDEX_OPTION, MINOR, open_layer, write, write_bento
from small_wheels import bentoml_line

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.images.assembly.qualify import qualify
from kfp_bento.runtime.images.python.environment import settle
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.selection import Wheel, locked

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-r /etc/passwd", "option -r"),
        ("-r/etc/passwd", "option -r"),
        ("--requirement=/etc/passwd", "option --requirement"),
        ("-c /etc/passwd", "option -c"),
        ("-e .", "is editable"),
        ("--editable .", "is editable"),
        ("--find-links /var", "option --find-links"),
        ("# a comment does not go on \\\n-r /etc/passwd", "option -r"),
        (f"idna==3.10 {HASH} # nor does this one \\\n-r /etc/passwd", "option -r"),
        (f"{INDEX_OPTION} https://user:hunter2@index.example/simple", "credentials"),
        (f"idna @ https://hunter2@index.example/idna.whl {HASH}", "credentials"),
        (f"idna @ https://index.example/idna.whl?token=hunter2 {HASH}", "credentials"),
        (f"{INDEX_OPTION} https://index.example/${{AWS_SECRET_ACCESS_KEY}}/simple", "variable"),
        (f"idna @ https://index.example/${{TOKEN}}/idna.whl {HASH}", "variable"),
        (f"idna @ file:///etc/passwd {HASH}", "outside the bento"),
        (f"/etc/idna.whl {HASH}", "outside the bento"),
        (f"./wheels/../../../idna.whl {HASH}", "outside the bento"),
        (f"../idna.whl {HASH}", "outside the bento"),
        (f"{INDEX_OPTION}=file:///etc", "outside the bento"),
        ("idna==3.10", "not locked with hashes"),
        ("idna==3.10 \\\n  # --hash=sha256:00", "not locked with hashes"),
        ("\udcff", "cannot be read"),
    ],
)
def test_requirements_that_reach_beyond_packages_are_refused(
    bento: Bento, text: str, reason: str
) -> None:
    file = bento.directory / "env/python/requirements.txt"
    file.write_bytes(f"{text}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(ImageError, match=reason) as caught:
        qualify(bento.directory)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"{INDEX_OPTION} https://index.example/simple\nidna==3.10 {HASH}",
        f"idna ~= 3.10 ; python_version < '4' \\\n    {HASH} \\\n    {HASH}\n# via x",
        f"./wheels/greeter-1.0-py3-none-any.whl {HASH}",
        f"idna @ https://files.example/a/idna-3.10-py3-none-any.whl#sha256=00 {HASH}",
    ],
)
def test_plain_requirements_pass(bento: Bento, text: str) -> None:
    lock = f"{text}\n{bentoml_line(bento.directory)}"
    (bento.directory / "env/python/requirements.txt").write_text(lock)
    assert qualify(bento.directory).requirements.name == "requirements.txt"


def test_a_list_of_ones_own_includes_nothing_either(tmp_path: Path) -> None:
    file = write(tmp_path / "lock.txt", "# a comment \\\n-r /etc/passwd\nidna==3.10\n")
    lock = Lock(file, tmp_path, MINOR)
    assert list(lock.lines()) == ["-r /etc/passwd", "idna==3.10"]
    with pytest.raises(ImageError, match="option -r"):
        list(lock.options())


@pytest.mark.parametrize(
    "change",
    [
        {"version": "3.10\n-r /etc/passwd"},
        {"source": "./x.whl --find-links /"},
        {"sha256": "00"},
        {"size": "7"},
        {"more": ""},
    ],
)
def test_a_remembered_wheel_is_one_line_of_a_list_or_none(change: dict[str, Any]) -> None:
    wheel = Wheel("idna", "3.10", "idna-3.10-py3-none-any.whl", "0" * 64, 70_000)
    assert Wheel.from_dict(wheel.to_dict()) == wheel
    with pytest.raises(ValueError, match="wheel"):
        Wheel.from_dict({**wheel.to_dict(), **change})


def test_wheels_that_the_lock_does_not_hold_are_not_remembered(tmp_path: Path) -> None:
    lock = Lock(write(tmp_path / "lock.txt", f"idna==3.10 {HASH}\n"), tmp_path, MINOR)
    wheel = Wheel("idna", "3.10", "idna-3.10-py3-none-any.whl", "0" * 64, 70_000)
    assert locked([wheel], lock)
    assert not locked([wheel, replace(wheel, sha256="1" * 64)], lock)


@pytest.mark.parametrize("record", [b"\xff", b"a,b\n", b'a,b,"c', b"a\0,,7\n"])
def test_a_record_that_is_none_is_refused_or_harmless(tmp_path: Path, record: bytes) -> None:
    info = write(tmp_path / f"lib/python{MINOR}/site-packages/x-1.dist-info/RECORD", record).parent
    try:
        settle(tmp_path, MINOR)
    except ImageError as error:
        assert "RECORD of x-1.dist-info cannot be read" in error.message
    assert info.is_dir()


def test_a_wheel_that_is_a_symlink_out_of_the_bento_is_refused(bento: Bento) -> None:
    outside = write(bento.directory.parent / "secret.whl", "secret")
    (bento.directory / "src/wheels/other.whl").symlink_to(outside)
    with pytest.raises(ImageError, match=r"other\.whl': it is a symlink that leaves the bento"):
        qualify(bento.directory)


def test_a_pipe_among_the_wheels_keeps_nobody_waiting(bento: Bento) -> None:
    os.mkfifo(bento.directory / "src/wheels/other.whl")
    with pytest.raises(ImageError, match=r"other\.whl': it is no file"):
        qualify(bento.directory)


def bento_with_wheel(directory: Path, members: dict[str, str], symlink: str = "") -> Bento:
    info = "greeter-1.0.dist-info"
    plain = {
        "greeter.py": "x = 1\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    wheel = directory / "src/wheels/greeter-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**plain, **members}.items():
            member = zipfile.ZipInfo(name)
            member.create_system = 3
            member.external_attr = (0o120777 if name == symlink else 0o104755) << 16
            archive.writestr(member, text)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return write_bento(directory, f"./wheels/greeter-1.0-py3-none-any.whl --hash=sha256:{digest}\n")


@pytest.mark.parametrize(
    ("members", "symlink"),
    [
        ({"../../../evil.py": ""}, ""),
        ({"/tmp/evil.py": ""}, ""),
        ({"greeter-1.0.data/data/../../../evil.txt": ""}, ""),
        ({"evil": "/etc/passwd"}, "evil"),
        ({"bin": "../../../.."}, "bin"),
        ({"evil.py": "../../../../../../etc/passwd"}, "evil.py"),
        ({"greeter-1.0.data/data/pyvenv.cfg": "evil"}, ""),
    ],
)
def test_a_wheel_changes_nothing_outside_its_place(
    tmp_path: Path, base: str, members: dict[str, str], symlink: str
) -> None:
    image = build_image(
        bento_with_wheel(tmp_path / "bento", members, symlink),
        f"oci:{tmp_path}/out",
        ImageOptions(base=base),
    )
    wheels, environment = (open_layer(tmp_path / "out", layer) for layer in image.layers[1:3])
    found = {member.name: member for layer in (wheels, environment) for member in layer}
    config = environment.extractfile("app/.venv/pyvenv.cfg")  # it lies above
    assert config is not None and b"home = /usr/local/bin" in config.read()
    assert all(name == "app" or name.startswith("app/.venv") for name in found)
    links = {name: member.linkname for name, member in found.items() if member.issym()}
    venv = "app/.venv/bin"
    python = f"/usr/local/bin/python{MINOR}"
    assert links == {
        **{f"{venv}/python": python, f"{venv}/python3": "python"},
        f"{venv}/python{MINOR}": "python",
    }
    assert not any(member.mode & 0o7000 for member in found.values())


def test_a_wheel_cannot_bring_an_interpreter(tmp_path: Path, base: str) -> None:
    hostile = bento_with_wheel(tmp_path / "bento", {"greeter-1.0.data/data/bin/python3": "evil"})
    with pytest.raises(ImageError, match="python3"):
        build_image(hostile, f"oci:{tmp_path}/out", ImageOptions(base=base))


def test_a_wheel_with_a_whiteout_is_refused(tmp_path: Path, base: str) -> None:
    hostile = bento_with_wheel(tmp_path / "bento", {"pkg/.wh.important": ""})
    with pytest.raises(ImageError, match=r"\.wh\."):
        build_image(hostile, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert not (tmp_path / "out").exists()
