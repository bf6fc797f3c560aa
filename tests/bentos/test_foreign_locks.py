"""A stranger's bento gets one lock with hashes; what it cannot keep is said, with a way out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kfp_bento_command import kfp_bento
from package_index import Index, package_index, wheel
from strangers import new_bento, old_bento

from kfp_bento.runtime.bentos import Bento, ImportOptions, import_bento, load_bento
from kfp_bento.runtime.bentos.wishes import WISHES
from kfp_bento.runtime.errors import BentoError, ImageError, InvalidInput
from kfp_bento.runtime.images.assembly.qualify import qualify

VERSIONS = {
    "bentoml": ("1.0.25", "1.1.11", "1.2.20", "1.4.39"),
    "six": ("1.16.0", "1.17.0"),
    "setuptools": ("69.0.0", "84.0.0"),
    "cattrs": ("23.1.2", "26.0.0"),
    "pydantic": ("2.7.4", "2.14.0"),
}


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    """The index that is configured here."""
    with package_index() as found:
        for name, versions in VERSIONS.items():
            for version in versions:
                found.has_wheel(name, version)
        yield found


@pytest.fixture(scope="module")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv")


@pytest.fixture(autouse=True)
def _configured(
    index: Index, uv_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.simple)
    monkeypatch.setenv("UV_CACHE_DIR", str(uv_cache))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))


def taken(bento: Path, **options: object) -> Bento:
    return import_bento(str(bento), bento.parent / "taken", ImportOptions(**options))  # type: ignore[arg-type]


def pins(bento: Bento) -> list[str]:
    lock = (bento.directory / "env/python/requirements.txt").read_text()
    lines = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    return [line.split()[0] for line in lines]


def document(bento: Bento) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = yaml.safe_load(
        (bento.directory / "bento.yaml").read_text()
    )
    return found


def test_requirements_of_today_are_locked_and_the_tag_stays(tmp_path: Path) -> None:
    public = "https://{}.example/simple".format("pypi")
    lines = f"--index-url {public}\n\nsix==1.16.0\nbentoml==1.4.39\n"
    bento = taken(new_bento(tmp_path / "given", lines))
    lock = (bento.directory / "env/python/requirements.txt").read_text()
    assert bento.tag == "p:abc"
    assert pins(bento) == ["bentoml==1.4.39", "six==1.16.0"]
    assert lock.count("--hash=sha256:") == 2
    assert document(bento)["image"]["python_requirements"] == lock
    assert bento == load_bento(bento.directory)
    assert bento.note == "Locked with hashes: 2 packages."


def test_a_locked_bento_stays_byte_for_byte(tmp_path: Path) -> None:
    first = taken(new_bento(tmp_path / "given", "six\n"))
    before = {path: path.read_bytes() for path in first.directory.rglob("*") if path.is_file()}
    first.directory.rename(tmp_path / "again")
    second = taken(tmp_path / "again")
    assert {path: path.read_bytes() for path in before} == before
    assert (second.digest, second.note) == (first.digest, "")


def test_the_list_that_old_images_install_is_the_one_that_counts(tmp_path: Path) -> None:
    lists = {
        "requirements.txt": "six\n",
        "requirements.lock.txt": "--find-links /opt/wheels\n\nsix==1.16.0\n    # via -r x.txt\n",
    }
    bento = taken(old_bento(tmp_path / "given", lists))
    # BentoML before 1.4 needs pkg_resources, and does not say so.
    assert pins(bento) == ["bentoml==1.1.11", "setuptools==69.0.0", "six==1.16.0"]
    assert not (bento.directory / "env/python/requirements.lock.txt").exists()
    assert "Left out: --find-links of the machine that built it." in bento.note


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.0.25", ["bentoml==1.0.25", "cattrs==23.1.2", "setuptools==69.0.0"]),
        ("1.1.11", ["bentoml==1.1.11", "setuptools==69.0.0"]),
        ("1.2.20", ["bentoml==1.2.20", "pydantic==2.7.4", "setuptools==69.0.0"]),
        ("1.4.39", ["bentoml==1.4.39"]),
    ],
)
def test_an_old_bentoml_gets_what_it_runs_with(
    version: str, expected: list[str], tmp_path: Path
) -> None:
    given = old_bento(tmp_path / "given")
    file = given / "bento.yaml"
    file.write_text(file.read_text().replace("1.1.11", version))
    assert pins(taken(given)) == expected


def test_a_pin_that_an_old_bentoml_does_not_run_with_is_replaced_and_told(tmp_path: Path) -> None:
    lists = {"requirements.lock.txt": "setuptools==84.0.0\n"}
    bento = taken(old_bento(tmp_path / "given", lists))
    assert "setuptools==69.0.0" in pins(bento)
    told = "BentoML 1.1.11 does not run with setuptools==84.0.0: setuptools<81 is taken."
    assert told in bento.note


def test_requirements_that_were_left_open_are_told_with_the_day_they_are_from(
    tmp_path: Path,
) -> None:
    bento = taken(new_bento(tmp_path / "given", "six\nbentoml==1.4.39\n"))
    assert "did not pin 1 of its requirements" in bento.note
    assert "UV_EXCLUDE_NEWER=2024-05-06" in bento.note


def test_the_users_requirement_stands_in_place_of_the_bentos(tmp_path: Path) -> None:
    given = new_bento(tmp_path / "given", "six==9.9\nbentoml==1.4.39\n")
    with pytest.raises(BentoError, match=r"no version of six==9\.9") as failure:
        taken(given)
    assert "--requirement" in failure.value.hint
    assert not (tmp_path / "taken").exists()
    bento = taken(given, requirements=["six<1.17"])
    assert pins(bento) == ["bentoml==1.4.39", "six==1.16.0"]


def test_wheels_that_came_along_are_locked_with_what_they_need(tmp_path: Path) -> None:
    given = old_bento(tmp_path / "given", python={"wheels": ["./own-1.0-py3-none-any.whl"]})
    wheels = given / "env/python/wheels"
    wheels.mkdir(parents=True)
    (wheels / "own-1.0-py3-none-any.whl").write_bytes(wheel("own", requires=["six<1.17"]))
    bento = taken(given)
    assert "./wheels/own-1.0-py3-none-any.whl" in pins(bento)
    assert "six==1.16.0" in pins(bento)
    assert (bento.directory / "src/wheels/own-1.0-py3-none-any.whl").is_file()
    assert not (bento.directory / "env/python/wheels").exists()
    assert document(bento)["python"]["wheels"] is None


def test_wheels_of_today_are_named_as_they_were(tmp_path: Path) -> None:
    given = new_bento(tmp_path / "given", "./wheels/own-1.0-py3-none-any.whl\n")
    (given / "src/wheels").mkdir()
    (given / "src/wheels/own-1.0-py3-none-any.whl").write_bytes(wheel("own"))
    bento = taken(given)
    assert sorted(pins(bento)) == ["./wheels/own-1.0-py3-none-any.whl", "bentoml==1.4.39"]


def test_a_source_archive_in_the_bento_is_not_built(tmp_path: Path) -> None:
    given = new_bento(tmp_path / "given", "./wheels/own-1.0.tar.gz\nsix\n")
    (given / "src/wheels").mkdir()
    (given / "src/wheels/own-1.0.tar.gz").write_bytes(b"x")
    with pytest.raises(BentoError, match="nothing is built here") as failure:
        taken(given)
    assert "pip wheel" in failure.value.hint


def test_an_index_of_the_bento_is_asked_only_where_it_is_allowed(
    tmp_path: Path, index: Index
) -> None:
    with package_index() as corporate:
        corporate.has_wheel("secretive", "1.0")
        address = corporate.simple.replace("://", "://user:s3cret@")
        given = new_bento(
            tmp_path / "given", f"--index-url {address}\nsecretive\nbentoml==1.4.39\n"
        )
        (given / "src/bentofile.yaml").write_text(f'index_url: "{address}"\n')
        with pytest.raises(BentoError, match="asks for a package index of its own") as failure:
            taken(given)
        assert "s3cret" not in f"{failure.value.message}{failure.value.hint}"
        for way in (f"--allow-source {corporate.simple}", "netrc", "UV_INDEX", "--without index"):
            assert way in failure.value.hint
        bento = taken(given, allow_sources=[corporate.simple])
        assert not any("s3cret" in account for _, account in corporate.arrived)
    assert "secretive==1.0" in pins(bento)
    texts = [path.read_text() for path in bento.directory.rglob("*") if path.is_file()]
    assert not [text for text in texts if "s3cret" in text]
    assert "taken out of src/bentofile.yaml" in bento.note


def test_an_index_of_the_bento_can_be_left_out(tmp_path: Path) -> None:
    given = new_bento(tmp_path / "given", "--extra-index-url https://corp.example/simple\nsix\n")
    bento = taken(given, without=["index"])
    assert pins(bento) == ["bentoml==1.4.39", "six==1.17.0"]


def test_accounts_of_a_configured_index_are_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with package_index() as corporate:
        corporate.has_wheel("secretive", "1.0")
        given = new_bento(tmp_path / "given", f"-i {corporate.simple}\nsecretive\n")
        monkeypatch.setenv("UV_INDEX", corporate.simple.replace("://", "://me:mine@"))
        assert "secretive==1.0" in pins(taken(given))
        assert any(account for _, account in corporate.arrived)


# --- what cannot be kept --------------------------------------------------------------------------


def test_all_that_cannot_be_kept_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    given = old_bento(
        tmp_path / "given",
        docker={
            "setup_script": "./setup.sh",
            "cuda_version": "12",
            "dockerfile_template": "./D.template",
            "distro": "alpine",
        },
        conda={"dependencies": ["lightgbm=4"]},
    )
    with pytest.raises(BentoError) as failure:
        taken(given)
    names = ("setup_script", "cuda_version", "dockerfile_template", "distro", "conda")
    lines = (given / "bento.yaml").read_text().splitlines()
    for key in (*names[:4], "dependencies"):
        number = next(n for n, line in enumerate(lines, 1) if line.startswith(f"  {key}:"))
        assert f"bento.yaml line {number}: " in failure.value.message
    assert all(f"--without {name}" in failure.value.hint for name in names)
    assert "lightgbm=4" in failure.value.message
    assert not (tmp_path / "taken").exists()
    bento = taken(given, without=names)
    assert document(bento)["docker"]["setup_script"] is None
    assert document(bento)["docker"]["distro"] == "debian"
    assert document(bento)["conda"] == dict.fromkeys(document(bento)["conda"])
    assert "Left out: docker.setup_script: ./setup.sh" in bento.note
    assert qualify(bento.directory).requirements.is_file()  # an image can be made of it


def test_commands_of_an_image_can_be_left_out_and_packages_stay(tmp_path: Path) -> None:
    install = "apt-get install -q -y -o Dpkg::Options::=--force-confdef libgomp1"
    given = new_bento(
        tmp_path / "given",
        commands=[install, "make", "env/docker/script__setup.sh"],
        post_commands=["echo done"],
        base_image="corp.example/base:1",
    )
    with pytest.raises(BentoError) as failure:
        taken(given)
    assert "--without setup_script" in failure.value.hint
    bento = taken(given, without=["commands", "setup_script"])
    image = document(bento)["image"]
    assert (image["commands"], image["post_commands"]) == ([install], [])
    assert image["base_image"] == "corp.example/base:1"
    assert qualify(bento.directory).system_packages == ("libgomp1",)
    bare = taken(given, without=["commands", "setup_script", "base_image", "system_packages"])
    assert document(bare)["image"]["commands"] == []
    assert document(bare)["image"]["base_image"] == "python:3.11-slim"
    assert "Left out: system packages: libgomp1" in bare.note


def test_another_distribution_goes_with_its_base(tmp_path: Path) -> None:
    given = new_bento(
        tmp_path / "given", base_image="python:3.11-alpine", commands=["apk add --update bash"]
    )
    image = document(taken(given, without=["distro"]))["image"]
    assert (image["base_image"], image["commands"]) == ("python:3.11-slim", [])


def test_the_command_that_an_image_names_leads_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = old_bento(
        tmp_path / "given", {"requirements.txt": "six\n"}, docker={"setup_script": "./setup.sh"}
    )
    with pytest.raises(ImageError) as failure:
        qualify(given)
    first = failure.value.hint.splitlines()[0]
    command = shlex.split(first[first.index("kfp-bento bento import") :])
    done = kfp_bento(*command[1:], "--no-verify", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "Left out: docker.setup_script: ./setup.sh" in said["note"]
    assert (said["tag"], said["golden"]["verified"]) == ("old:abc", "off")
    assert Path(said["golden"]["file"]).is_file()
    assert qualify(tmp_path / said["directory"]).requirements.is_file()


def test_what_is_no_wish_cannot_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'docker' is nothing") as failure:
        taken(new_bento(tmp_path / "given", "six\n"), without=["docker"])
    assert all(name in failure.value.hint for name in WISHES)


def test_a_bento_that_stays_as_it_is_is_not_refused_for_its_wishes(tmp_path: Path) -> None:
    given = old_bento(tmp_path / "given", docker={"cuda_version": "12"})
    before = (given / "bento.yaml").read_bytes()
    bento = taken(given, lock=False)
    assert (bento.directory / "bento.yaml").read_bytes() == before
    with pytest.raises(InvalidInput, match="stays as it is"):
        taken(given, lock=False, without=["cuda_version"])


def test_what_old_lists_are_made_of_is_written_through_no_link(tmp_path: Path) -> None:
    given = new_bento(tmp_path / "given")
    (given / "src/list.txt").write_text("six==1.16.0\nbentoml==1.4.39\n")
    (given / "env/python/requirements.txt").unlink()
    (given / "env/python/requirements.txt").symlink_to("../../src/list.txt")
    bento = taken(given)
    assert (bento.directory / "src/list.txt").read_text() == "six==1.16.0\nbentoml==1.4.39\n"


# --- the store of BentoML -------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The bentos p:abc (latest) and p:old in BentoML's store."""
    bentos = tmp_path / "home/bentos"
    new_bento(bentos / "p/abc", "six==1.16.0\n")
    new_bento(bentos / "p/old", "six==1.16.0\n")
    (bentos / "p/latest").write_text("abc")
    return bentos


@pytest.mark.parametrize("tag", ["p:abc", "p:latest", "p"])
def test_a_tag_of_the_store_is_taken_in(tag: str, stored: Path, tmp_path: Path) -> None:
    bento = import_bento(tag, tmp_path / "taken")
    assert bento.tag == "p:abc"
    assert (stored / "p/abc/env/python/requirements.txt").read_text() == "six==1.16.0\n"


@pytest.mark.parametrize(("tag", "there"), [("p:no", "p:abc"), ("q:abc", "It has: p.")])
def test_a_tag_that_the_store_does_not_have_says_what_there_is(
    tag: str, there: str, stored: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=f"no bento {tag}") as failure:
        import_bento(tag, tmp_path / "taken")
    assert there in failure.value.hint


def test_a_folder_of_that_name_is_meant_before_the_store(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old_bento(tmp_path / "p")
    assert import_bento("p", tmp_path / "taken").tag == "old:abc"
