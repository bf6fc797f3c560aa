"""Bentos where they are kept: listed without being unpacked, chosen, and deleted whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import uuid
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import foreign_bentos
import pytest
from sample_bentos import write_bento
from servers import S3Server

from kfp_bento.runtime.bentos import (
    ImportOptions,
    StoredBento,
    chosen_bentos,
    describe_bento,
    expendable_bentos,
    export_bento,
    import_bento,
    load_bento,
    newest_first,
    open_store,
    opened_bento,
    require_unused,
)
from kfp_bento.runtime.bentos.stored_bento import BentoFacts, facts_of_object, recorded_facts
from kfp_bento.runtime.errors import InvalidInput, KfpBentoError

FORMATS = ("bento", "tar", "tar.gz", "tar.xz", "tar.bz2", "zip")
NOW = datetime(2026, 7, 1, tzinfo=UTC)
ASK = """
import bentoml, json
tags = sorted(str(bento.tag) for bento in bentoml.bentos.list())
print(json.dumps([tags, str(bentoml.bentos.get("echo:latest").tag)]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `exports` that BentoML wrote, and the `home` of its store."""
    folder = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, foreign_bentos.__file__, "build", str(folder)],
        env=of_home(folder / "home"),
        check=True,
        capture_output=True,
    )
    return folder


def of_home(home: Path) -> dict[str, str]:
    return os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}


def told_by_bentoml(home: Path) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=of_home(home), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def with_model(directory: Path, version: str = "v1", name: str = "wine") -> Path:
    """A bento that names its Python and has a model in it."""
    write_bento(directory, name, version)
    text = (directory / "bento.yaml").read_text()
    text = text.replace("models: []", "models: [{tag: 'weights:v1'}]")
    (directory / "bento.yaml").write_text(f"{text}image: {{python_version: '3.11.7'}}\n")
    weights = directory / "models" / "weights" / "v1" / "weights.bin"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(bytes(5000))
    return directory


def found_in(store: Path) -> dict[str, StoredBento]:
    return {bento.place: bento for bento in open_store(str(store)).list()}


@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_is_known_without_being_unpacked(form: str, tmp_path: Path) -> None:
    bento = load_bento(with_model(tmp_path / "made" / "bento"))
    store = tmp_path / "store"
    exported = export_bento(bento, f"{store}/", form)
    (found,) = open_store(str(store)).list()
    assert found.place == f"wine-v1.{form}"
    assert (found.format, found.size) == (form, exported.size)
    assert found.facts == BentoFacts("wine:v1", "", "3.11", "1.4.39", ("weights:v1",))


def test_what_bentoml_keeps_and_exports_is_known(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "store")
    found = found_in(tmp_path / "store")
    exports = {f"exports/echo.{form}" for form in foreign_bentos.FORMATS}
    assert found.keys() == {*exports, "home/bentos/echo/v1"}
    for bento in found.values():
        assert (bento.facts.tag, bento.facts.models) == ("echo:v1", ("weights:v1",))


def test_an_object_says_the_same_as_the_archive(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    folder = f"{s3_server.bucket}/{uuid.uuid4().hex}/"
    bento = load_bento(with_model(tmp_path / "bento"))
    exported = export_bento(bento, f"s3://{folder}", "tar.gz")
    client = s3_server.client()
    key = folder.partition("/")[2]
    client.put_object(Bucket=s3_server.bucket, Key=f"{key}data.zip", Body=b"no bento")
    client.put_object(Bucket=s3_server.bucket, Key=f"{key}old.bento", Body=b"by somebody else")
    for scheme in ("s3", "minio"):
        store = open_store(f"{scheme}://{folder}")
        found = {one.place: one for one in store.list()}
        assert found.keys() == {"wine-v1.tar.gz", "old.bento"}
        assert found["wine-v1.tar.gz"].size == exported.size
        assert found["wine-v1.tar.gz"].facts == BentoFacts(
            "wine:v1", bento.digest, "3.11", "1.4.39", ("weights:v1",)
        )
        assert found["old.bento"].facts == BentoFacts()
    store.delete(found["wine-v1.tar.gz"])
    left = client.list_objects_v2(Bucket=s3_server.bucket, Prefix=key)["Contents"]
    assert [one["Key"].removeprefix(key) for one in left] == ["data.zip", "old.bento"]


def test_what_is_no_bento_is_not_listed(tmp_path: Path) -> None:
    with_model(tmp_path / "made")
    export_bento(load_bento(tmp_path / "made"), str(tmp_path / "cut.tar"))
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[:300])
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "made" / "models", "models")
    with zipfile.ZipFile(tmp_path / "deep.zip", "w") as zipped:
        zipped.writestr("a/b/bento.yaml", (tmp_path / "made" / "bento.yaml").read_bytes())
    (tmp_path / "broken.bento").write_bytes(b"\xfd7zXZ\0 and nothing else")
    (tmp_path / "link").symlink_to(tmp_path / "made")
    (tmp_path / "other.partial-7").mkdir()
    with_model(tmp_path / "other.partial-7" / "bento")
    found = found_in(tmp_path)
    # What is called a bento is shown, so that nobody wonders where it is.
    assert found.keys() == {"made", "broken.bento"}
    assert found["broken.bento"].facts == BentoFacts()


def test_a_bomb_ends_the_look_and_not_the_machine(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz", compresslevel=1) as tar:
        member = tarfile.TarInfo("a")
        member.size = 65 << 20
        with Path("/dev/zero").open("rb") as zeros:
            tar.addfile(member, zeros)
        tar.add(with_model(tmp_path / "made") / "bento.yaml", "bento.yaml")
    assert found_in(tmp_path).keys() == {"made"}


def test_a_store_that_makes_no_sense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    with pytest.raises(InvalidInput, match=f"no folder {tmp_path}/home/bentos"):
        open_store()
    with pytest.raises(InvalidInput, match="not a store") as refusal:
        open_store(str(with_model(tmp_path / "bento")))
    assert f"bento show {tmp_path}/bento" in refusal.value.hint
    with pytest.raises(InvalidInput, match="cannot be listed"):
        open_store("https://example.com/bentos/").list()


def test_a_deleted_folder_takes_its_golden_answers_with_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with_model(tmp_path / "store" / name)
        (tmp_path / "store" / f"{name}.golden.json").write_text("{}")
    store = open_store(str(tmp_path / "store"))
    store.delete(found_in(tmp_path / "store")["one"])
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [
        "two",
        "two.golden.json",
    ]


def test_what_a_killed_deletion_left_is_not_listed_and_goes_with_the_next(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for name in ("one", "two", "kfp-bento-delete-x1/gone"):
        with_model(store / name)
    assert found_in(store).keys() == {"one", "two"}
    open_store(str(store)).delete(found_in(store)["one"])
    assert [path.name for path in store.iterdir()] == ["two"]


def test_a_deleted_archive_takes_its_sum_with_it(tmp_path: Path) -> None:
    export_bento(load_bento(with_model(tmp_path / "bento")), f"{tmp_path}/store/")
    store = open_store(str(tmp_path / "store"))
    store.delete(found_in(tmp_path / "store")["wine-v1.bento"])
    assert list((tmp_path / "store").iterdir()) == []


def test_bentoml_understands_its_store_after_a_deletion(built: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(built / "home", home)
    echo = home / "bentos" / "echo"
    shutil.copytree(echo / "v1", echo / "v2")
    text = (echo / "v2" / "bento.yaml").read_text()
    (echo / "v2" / "bento.yaml").write_text(text.replace("version: v1", "version: v2", 1))
    (echo / "latest").write_text("v2")
    store = open_store(str(home / "bentos"))
    store.delete(found_in(home / "bentos")["echo/v2"])
    assert told_by_bentoml(home) == [["echo:v1"], "echo:v1"]
    store.delete(found_in(home / "bentos")["echo/v1"])
    assert list((home / "bentos").iterdir()) == []


def stored(tag: str, days: int, place: str = "", form: str = "bento") -> StoredBento:
    since = NOW - timedelta(days=days)
    return StoredBento(place or tag, form, 10, since, BentoFacts(tag))


def test_the_newest_comes_first() -> None:
    bentos = [stored("wine:a", 3), stored("wine:c", 1), stored("wine:b", 1)]
    assert [one.place for one in newest_first(bentos)] == ["wine:b", "wine:c", "wine:a"]


def test_the_newest_of_each_name_stay_in_all_their_formats() -> None:
    bentos = [
        stored("wine:new", 1),
        stored("wine:new", 50, "wine-new.tar", "tar"),
        stored("wine:old", 40),
        stored("beer:old", 90),
        stored("", 99, "unknown.bento"),
    ]
    gone = expendable_bentos(bentos, NOW, keep=1)
    assert [one.place for one in gone] == ["wine:old"]
    assert len(expendable_bentos(bentos, NOW, keep=0)) == 4
    assert expendable_bentos(bentos, NOW, keep=2) == []


def test_what_is_young_stays() -> None:
    bentos = [stored("wine:a", 1), stored("wine:b", 10), stored("wine:c", 40)]
    gone = expendable_bentos(bentos, NOW, keep=1, older_than=timedelta(days=30))
    assert [one.place for one in gone] == ["wine:c"]


def test_a_bento_is_chosen_by_its_tag_or_its_place() -> None:
    bentos = [stored("wine:a", 1, "x.bento"), stored("wine:a", 1, "x.tar"), stored("wine:b", 1)]
    assert chosen_bentos(bentos, "wine:a", "store") == bentos[:2]
    assert chosen_bentos(bentos, "x.tar", "store") == [bentos[1]]
    with pytest.raises(InvalidInput, match="no bento wine in store"):
        chosen_bentos(bentos, "wine", "store")


def test_what_a_release_serves_is_not_deleted() -> None:
    require_unused([stored("wine:a", 1)], {"wine:b": ["prod/wine"]})
    with pytest.raises(InvalidInput, match="served by prod/wine, test/wine") as refusal:
        require_unused([stored("wine:a", 1)], {"wine:a": ["prod/wine", "test/wine"]})
    assert "release delete wine --namespace prod" in refusal.value.hint


def test_facts_that_do_not_fit_are_unknown_and_not_cut(tmp_path: Path) -> None:
    directory = with_model(tmp_path / "bento")
    tags = [f"models-of-somebody-{number}:v1" for number in range(60)]
    text = (directory / "bento.yaml").read_text()
    many = ", ".join(f"{{tag: '{tag}', registry: elsewhere}}" for tag in tags)
    (directory / "bento.yaml").write_text(text.replace("{tag: 'weights:v1'}", many))
    recorded = recorded_facts(load_bento(directory))
    assert sum(map(len, [*recorded, *recorded.values()])) < 2048
    assert facts_of_object(recorded).models is None
    assert facts_of_object(recorded).tag == "wine:v1"


def test_a_bento_is_opened_wherever_it_is(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(built / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    stored_there = built / "home" / "bentos" / "echo" / "v1"
    for source in ("echo", "echo:latest", "echo:v1", str(stored_there), f"file://{stored_there}"):
        with opened_bento(source) as bento:
            assert bento.directory == stored_there
    with opened_bento(str(built / "exports" / "echo.zip")) as bento:
        assert (bento.tag, bento.directory.is_relative_to(tmp_path)) == ("echo:v1", True)
    assert list(tmp_path.iterdir()) == []
    for source in ("echo:v9", "beer:latest"):
        with pytest.raises(InvalidInput, match="has no bento"), opened_bento(source):
            pass
    with pytest.raises(KfpBentoError), opened_bento("beer"):
        pass


def test_a_description_tells_what_a_bento_is(built: Path, tmp_path: Path) -> None:
    archive = str(built / "exports" / "echo.tar")
    bento = import_bento(archive, tmp_path / "bento", ImportOptions(lock=False))
    described = describe_bento(bento)
    assert [(one.path, one.name) for one in described.routes] == [("/echo", "echo")]
    assert described.size > 256_000
    assert described.lock
    assert not described.lock.hashed


def test_wishes_are_told_by_name_and_never_by_value(tmp_path: Path) -> None:
    directory = with_model(tmp_path / "bento")
    with (directory / "bento.yaml").open("a") as file:
        file.write("envs: [{name: TOKEN, value: hunter2}, {name: THREADS, value: '4'}]\n")
    text = (directory / "bento.yaml").read_text()
    command = "apt-get update && apt-get install -q -y -o Dpkg::Options::=--x libgomp1 git"
    text = text.replace("image: {", f"image: {{commands: ['{command}'], ")
    (directory / "bento.yaml").write_text(text)
    (directory / "env" / "python").mkdir(parents=True)
    lock = "numpy==1 \\\n    --hash=sha256:00\nsix @ ./wheels/six.whl\n# none==1\n"
    (directory / "env" / "python" / "requirements.txt").write_text(lock)
    described = describe_bento(load_bento(directory))
    assert described.system_packages == ("libgomp1", "git")
    assert described.variables == ("TOKEN", "THREADS")
    assert described.lock
    assert (described.lock.packages, described.lock.hashed) == (2, True)
    assert "hunter2" not in json.dumps(described.to_dict())
