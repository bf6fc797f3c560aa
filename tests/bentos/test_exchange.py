"""Bentos as archives: what goes out comes in again, whatever the format and whoever wrote it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import foreign_bentos
import pytest

from kfp_bento.runtime.bentos import ImportOptions, export_bento, import_bento, load_bento
from kfp_bento.runtime.errors import BentoError, InvalidInput, StorageError

AS_IT_IS = ImportOptions(lock=False)

FORMATS = ("bento", "tar", "tar.gz", "tar.xz", "tar.bz2", "zip")


def bentoml(home: Path, *arguments: str) -> str:
    answer = subprocess.run(
        [sys.executable, foreign_bentos.__file__, *arguments],
        env=os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `exports` of a bento, and the BentoML `home` that it was built in."""
    folder = tmp_path_factory.mktemp("foreign")
    bentoml(folder / "home", "build", str(folder))
    return folder


@pytest.fixture
def wine(foreign: Path, tmp_path: Path) -> Path:
    import_bento(str(foreign / "exports" / "echo.tar"), tmp_path / "bento", AS_IT_IS)
    return tmp_path / "bento"


@pytest.mark.parametrize("form", foreign_bentos.FORMATS)
def test_what_bentoml_exports_is_taken_in(form: str, foreign: Path, tmp_path: Path) -> None:
    bento = import_bento(str(foreign / "exports" / f"echo.{form}"), tmp_path / "bento", AS_IT_IS)
    assert bento == load_bento(tmp_path / "bento")
    assert (bento.tag, [model.tag for model in bento.models]) == ("echo:v1", ["weights:v1"])
    assert (
        bento.digest
        == import_bento(str(foreign / "exports/echo.tar"), tmp_path / "two", AS_IT_IS).digest
    )
    assert (bento.directory / "models/weights/v1/weights.bin").stat().st_size == 256_000
    assert (bento.directory / "src/package/Ünïcode name.txt").read_text() == "text"
    assert os.access(bento.directory / "src/run.sh", os.X_OK)


def test_a_bento_of_the_store_brings_its_models_in(foreign: Path, tmp_path: Path) -> None:
    stored = foreign / "home" / "bentos" / "echo" / "v1"
    assert not (stored / "models").exists()
    bento = import_bento(str(stored), tmp_path / "bento", AS_IT_IS)
    assert (bento.directory / "models/weights/v1/weights.bin").stat().st_size == 256_000
    assert (bento.directory / "models/weights/latest").read_text() == "v1"


def test_a_model_that_is_nowhere_is_named(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "empty"))
    shutil.copytree(foreign / "home/bentos/echo/v1", tmp_path / "a/b/c/alone")
    with pytest.raises(BentoError, match="needs the model weights:v1") as failure:
        import_bento(str(tmp_path / "a/b/c/alone"), tmp_path / "bento", AS_IT_IS)
    assert "bentoml export" in failure.value.hint
    assert not (tmp_path / "bento").exists()
    with pytest.raises(BentoError, match="needs the model weights:v1"):
        export_bento(load_bento(tmp_path / "a/b/c/alone"), str(tmp_path / "x.bento"))
    assert not (tmp_path / "x.bento").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_bento_gives_the_same_archive(form: str, wine: Path, tmp_path: Path) -> None:
    one = export_bento(load_bento(wine), str(tmp_path / "one"), form)
    shutil.copytree(wine, tmp_path / "elsewhere" / "copy", copy_function=shutil.copy)
    for path in (tmp_path / "elsewhere").rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(path.stat().st_mode & 0o700)
    two = export_bento(load_bento(tmp_path / "elsewhere/copy"), str(tmp_path / "two"), form)
    assert one.sha256 == two.sha256
    assert Path(one.uri).read_bytes() == Path(two.uri).read_bytes()


def test_the_content_is_the_same_in_every_format(wine: Path, tmp_path: Path) -> None:
    digests = {load_bento(wine).digest}
    for form in (*FORMATS, "directory"):
        exported = export_bento(load_bento(wine), str(tmp_path / f"out-{form}"), form)
        digests |= {exported.digest, import_bento(exported.uri, tmp_path / form, AS_IT_IS).digest}
        assert listing(tmp_path / form) == listing(wine)
    assert len(digests) == 1


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mode, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_bentoml_takes_in_what_is_exported(wine: Path, tmp_path: Path) -> None:
    bento = load_bento(wine)
    names = {"bento": "bento", "tar.gz": "gz", "tar.bz2": "bz2"}
    archives = [
        export_bento(bento, str(tmp_path / f"wine.{suffix}"), form).uri
        for form, suffix in {**names, "zip": "zip"}.items()
    ]
    found = json.loads(bentoml(tmp_path / "home", "import", *archives))
    expected = sorted(
        path.relative_to(wine).as_posix()
        for path in wine.rglob("*")
        if path.relative_to(wine).parts[0] != "models"
    )
    assert {archive: [*expected, "weights:v1"] for archive in archives} == found


@pytest.mark.parametrize(
    ("uri", "form", "name"),
    [
        ("wine.bento", "", "wine.bento"),
        ("wine.tgz", "", "wine.tgz"),
        ("wine", "", "wine.bento"),
        ("wine", "zip", "wine.zip"),
        ("folder/", "", "folder/echo-v1.bento"),
        ("folder/", "tar.gz", "folder/echo-v1.tar.gz"),
        ("wine.v2", "tar", "wine.v2.tar"),
    ],
)
def test_where_an_archive_goes(uri: str, form: str, name: str, wine: Path, tmp_path: Path) -> None:
    exported = export_bento(load_bento(wine), f"{tmp_path}/out/{uri}", form)
    assert exported.uri == f"{tmp_path}/out/{name}"
    assert zipfile.is_zipfile(exported.uri) == (exported.format == "zip")


def test_a_format_that_is_none_is_refused(wine: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no format"):
        export_bento(load_bento(wine), str(tmp_path / "x"), "rar")


def test_a_folder_around_the_bento_does_not_matter(wine: Path, tmp_path: Path) -> None:
    made = shutil.make_archive(str(tmp_path / "x"), "gztar", wine.parent, wine.name)
    assert import_bento(made, tmp_path / "in", AS_IT_IS).digest == load_bento(wine).digest


def test_a_changed_archive_is_refused(wine: Path, tmp_path: Path) -> None:
    exported = export_bento(load_bento(wine), str(tmp_path / "x.tar"))
    with Path(exported.uri).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    with pytest.raises(StorageError, match="SHA-256"):
        import_bento(exported.uri, tmp_path / "in", AS_IT_IS)
    Path(f"{exported.uri}.sha256").unlink()
    with pytest.raises(StorageError, match="SHA-256"):
        import_bento(exported.uri, tmp_path / "in", AS_IT_IS, sha256=exported.sha256)
    assert not (tmp_path / "in").exists()


def test_a_bento_that_is_not_the_recorded_one_is_refused(wine: Path, tmp_path: Path) -> None:
    facts = {"name": "echo", "version": "v1", "digest": load_bento(wine).digest, "models": []}
    (wine / ".kfp-bento.json").write_text(json.dumps(facts))
    exported = export_bento(load_bento(wine), str(tmp_path / "x.tar"))
    assert import_bento(exported.uri, tmp_path / "in", AS_IT_IS).digest == facts["digest"]
    (wine / "src/service.py").write_text("changed = True\n")
    exported = export_bento(load_bento(wine), str(tmp_path / "y.tar"))
    with pytest.raises(BentoError, match="was recorded"):
        import_bento(exported.uri, tmp_path / "again", AS_IT_IS)
    assert not (tmp_path / "again").exists()


def test_what_is_no_bento_is_left_alone(wine: Path, tmp_path: Path) -> None:
    exported = export_bento(load_bento(wine), str(tmp_path / "x.tar"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InvalidInput, match="left as it is"):
        import_bento(exported.uri, tmp_path / "mine", AS_IT_IS)
    with pytest.raises(InvalidInput, match="left as it is"):
        export_bento(load_bento(wine), str(tmp_path / "mine"), "directory")
    import_bento(exported.uri, wine, AS_IT_IS)  # a bento is replaced
    assert load_bento(wine).digest == exported.digest


def test_a_bundle_of_bentoml_0_is_named_so(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "bentoml.yml").write_text("version: 0.13.1\n")
    with pytest.raises(BentoError, match=r"BentoML 0\.x"):
        import_bento(
            shutil.make_archive(str(tmp_path / "x"), "tar", tmp_path / "old"),
            tmp_path / "in",
            AS_IT_IS,
        )
