"""Building: the same bytes everywhere, nothing half-made, and errors that can be read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import packed_models as samples
import pytest
import yaml
from mlflow.types import ColSpec, Schema

from kfp_bento.runtime.bentos import Bento, BentoModel, build_bento, load_bento
from kfp_bento.runtime.bentos.build import content_version
from kfp_bento.runtime.errors import BentoError, InvalidInput
from kfp_bento.runtime.models import ModelVersion, is_tag_name, load_model, tree_digest

if TYPE_CHECKING:
    from pathlib import Path

BUILD = """
import os, sys
from pathlib import Path
from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.models import load_model
os.umask(int(sys.argv[1], 8))
print(build_bento([load_model(Path(sys.argv[2]))], Path(sys.argv[3])).tag)
"""


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    schema = Schema([ColSpec("double", "x")])
    return samples.save_echo(tmp_path_factory.mktemp("m") / "Echo Model", schema)


@pytest.fixture(scope="module")
def built(echo: ModelVersion, tmp_path_factory: pytest.TempPathFactory) -> Bento:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "kfp_bento.runtime.bentos.build.lock_requirements", lambda *_: "six==1.17.0\n"
        )
        return build_bento([echo], tmp_path_factory.mktemp("built") / "bento")


@pytest.fixture
def quick_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "kfp_bento.runtime.bentos.build.lock_requirements", lambda *_: "six==1.17.0\n"
    )


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service without MLflow: what its building imports is there in a third of the time."""
    file = tmp_path_factory.mktemp("own") / "own.py"
    file.write_text(OWN.format(imports="", tag="echo-model:latest"))
    return file


def left_over(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_two_builds_in_different_places_give_the_same_bytes(
    echo: ModelVersion, tmp_path: Path
) -> None:
    trees = []
    for folder, mask, zone in (("one", "0077", "Asia/Tokyo"), ("deeper/two", "0000", "UTC")):
        place = tmp_path / folder
        place.mkdir(parents=True)
        copy = place / "Echo Model"
        shutil.copytree(echo.directory, copy)
        mlmodel = copy / "MLmodel"
        mlmodel.write_text(mlmodel.read_text() + f"run_id: {zone}\n")
        environment = {**os.environ, "TZ": zone, "PYTHONHASHSEED": str(len(zone))}
        subprocess.run(
            [sys.executable, "-c", BUILD, mask, str(copy), str(place / "bento")],
            env=environment,
            cwd=place,
            check=True,
        )
        own = frozenset({".kfp-bento.json"})
        trees.append(tree_digest(place / "bento", leave_out=own))
    assert trees[0] == trees[1]
    first, second = load_bento(tmp_path / "one/bento"), load_bento(tmp_path / "deeper/two/bento")
    assert (first.tag, first.digest) == (second.tag, second.digest)
    text = b"".join(p.read_bytes() for p in (tmp_path / "one/bento").rglob("*") if p.is_file())
    assert str(tmp_path).encode() not in text
    assert b"unversioned" not in text


def test_a_bento_is_laid_out_as_bentoml_wants_it(echo: ModelVersion, built: Bento) -> None:
    version = echo.content_digest.removeprefix("sha256:")[:16]
    info = yaml.safe_load((built.directory / "bento.yaml").read_text())
    assert built.name == "echo-model"
    assert (info["name"], info["version"], info["spec"]) == (built.name, built.version, 2)
    assert info["creation_time"] == "1970-01-01T00:00:00+00:00"
    assert info["services"][0]["models"][0]["tag"] == f"echo-model:{version}"
    assert info["image"]["commands"] == []
    assert info["image"]["base_image"] == f"python:{built.python_version}-slim"
    assert info["image"]["python_requirements"] == "six==1.17.0\n"
    assert (built.directory / "env/python/requirements.txt").read_text() == "six==1.17.0\n"
    assert (built.directory / "models/echo-model/latest").read_text() == version
    kept = built.directory / "models/echo-model" / version
    assert "run_id" not in (kept / "MLmodel").read_text()
    assert (kept / "conda.yaml").stat().st_ino == (echo.directory / "conda.yaml").stat().st_ino
    assert not (kept / ".kfp-bento.json").exists()
    assert os.access(built.directory / "env/docker/entrypoint.sh", os.X_OK)
    assert not list(built.directory.rglob("__pycache__"))
    assert left_over(built.directory.parent) == ["bento"]


def test_the_record_says_where_the_models_came_from(echo: ModelVersion, built: Bento) -> None:
    record = json.loads((built.directory / ".kfp-bento.json").read_text())
    assert record["models"][0]["provenance"]["uri"] == "Echo Model"
    assert built.models[0].digest == echo.content_digest
    assert load_bento(built.directory) == built


def test_building_again_changes_nothing_and_says_so(
    echo: ModelVersion, built: Bento, tmp_path: Path, quick_lock: None
) -> None:
    copy = tmp_path / "bento"
    shutil.copytree(built.directory, copy)
    inode = (copy / "bento.yaml").stat().st_ino
    again = build_bento([replace(echo, version="8")], copy)
    assert (built.reused, again.reused) == (False, True)
    assert (built.digest, inode) == (again.digest, (copy / "bento.yaml").stat().st_ino)
    assert load_bento(copy).models[0].provenance["version"] == "8"
    assert left_over(tmp_path) == ["bento"]


def test_the_version_follows_everything_that_decides_the_content(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("x = 1")
    model = BentoModel("a:1", "sha256:1")
    facts = (tmp_path, [model], "six==1", "3.11")
    versions = [
        content_version(*facts),
        content_version(tmp_path, [replace(model, tag="b:1")], *facts[2:]),
        content_version(tmp_path, [replace(model, digest="sha256:2")], *facts[2:]),
        content_version(tmp_path, [model], "six==2", "3.11"),
        content_version(tmp_path, [model], "six==1", "3.12"),
    ]
    (tmp_path / "service.py").write_text("x = 2")
    versions.append(content_version(*facts))
    assert len(set(versions)) == len(versions)
    assert all(is_tag_name(version) and len(version) == 16 for version in versions)


def test_another_bento_in_the_same_place_is_replaced(
    echo: ModelVersion, own: Path, built: Bento, tmp_path: Path, quick_lock: None
) -> None:
    shutil.copytree(built.directory, tmp_path / "bento")
    new = build_bento([echo], tmp_path / "bento", name="other", service=own)
    assert new.name == "other"
    assert load_bento(tmp_path / "bento").tag == new.tag
    assert left_over(tmp_path) == ["bento"]


def test_a_directory_with_other_files_is_left_alone(echo: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidInput, match="is not a bento"):
        build_bento([echo], tmp_path)
    assert left_over(tmp_path) == ["thesis.txt"]


def test_what_a_killed_build_left_is_swept(
    echo: ModelVersion, own: Path, tmp_path: Path, quick_lock: None
) -> None:
    (tmp_path / "bento.partial-1").mkdir()
    (tmp_path / "bento.partial-1/file").write_text("half")
    (tmp_path / "other.partial-1").mkdir()
    made = build_bento([echo], tmp_path / "bento", service=own)
    assert load_bento(tmp_path / "bento") == made
    assert left_over(tmp_path) == ["bento", "other.partial-1"]


def test_a_place_that_cannot_be_written_is_an_error(echo: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BentoError, match="cannot be read or written"):
        build_bento([echo], tmp_path / "file" / "bento")


OWN = """
import bentoml
{imports}
@bentoml.service
class Own:
    model = bentoml.models.BentoModel({tag!r})
    @bentoml.api
    def ask(self, x: int) -> int:
        return x
"""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (OWN.format(imports="import no_such_module", tag="echo-model"), "no_such_module"),
        (OWN.format(imports="1 / 0", tag="echo-model"), r"ZeroDivisionError.*own.py line 3"),
        ("class Own(:\n    pass\n", r"SyntaxError.*own.py line 1"),
        ("import sys\nsys.exit('no')\n", "SystemExit: no"),
        ("x = 1\n", "No service found"),
        (OWN.format(imports="", tag="unknown:latest"), "unknown"),
    ],
)
def test_a_service_that_cannot_be_built_is_refused_in_one_sentence(
    echo: ModelVersion, tmp_path: Path, source: str, message: str
) -> None:
    (tmp_path / "own.py").write_text(source)
    with pytest.raises(BentoError, match=message) as raised:
        build_bento([echo], tmp_path / "bento", service=tmp_path / "own.py")
    assert "Traceback" not in str(raised.value)
    assert "\n" not in raised.value.message
    assert raised.value.hint
    assert left_over(tmp_path) == ["own.py"]


def test_a_project_brings_its_build_file_and_its_requirements(
    echo: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def lock(requirements: list[str], *_: Any) -> str:
        asked.extend(requirements)
        return "six==1.17.0\n"

    monkeypatch.setattr("kfp_bento.runtime.bentos.build.lock_requirements", lock)
    project = tmp_path / "project"
    (project / "package").mkdir(parents=True)
    (project / "package" / "__init__.py").write_text("")
    (project / "package" / "own.py").write_text(OWN.format(imports="", tag="echo-model:latest"))
    (project / "secret.txt").write_text("not for the bento")
    (project / "bentofile.yaml").write_text(
        "service: package.own:Own\nname: from-the-file\ninclude: ['*.py']\n"
        "python:\n  packages: [httpx2>=1, 'numpy<3']\n"
    )
    before = tree_digest(project)
    bento = build_bento([echo], tmp_path / "bento", service=project, requirements=["rich"])
    assert (bento.name, bento.service) == ("from-the-file", "package.own:Own")
    assert {"httpx2>=1", "numpy<3", "rich"} <= set(asked)
    assert asked.count("numpy") == 0
    assert [line for line in asked if line.startswith("bentoml")] == [
        f"bentoml=={bento.bentoml_version}"
    ]
    source = {
        p.relative_to(bento.directory / "src").as_posix()
        for p in bento.directory.glob("src/**/*.py")
    }
    assert source == {"package/__init__.py", "package/own.py"}
    assert not (bento.directory / "src/secret.txt").exists()
    assert yaml.safe_load((bento.directory / "bento.yaml").read_text())["image"]["commands"] == []
    assert "apt-get" not in (bento.directory / "env/docker/Dockerfile").read_text()
    assert tree_digest(project) == before


def test_a_directory_without_a_service_is_refused(echo: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="holds no BentoML service"):
        build_bento([echo], tmp_path / "bento", service=tmp_path / "empty")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Not A Tag"}, "cannot be the name"),
        ({"name": "x" * 64}, "cannot be the name"),
        ({"python_version": "2.7"}, "cannot be built"),
        ({"python_version": "newest"}, "cannot be built"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    echo: ModelVersion, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        build_bento([echo], tmp_path / "bento", **options)
    assert left_over(tmp_path) == []


def test_models_that_do_not_go_together_are_refused(echo: ModelVersion, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="at least one model"):
        build_bento([], tmp_path / "bento")
    with pytest.raises(InvalidInput, match="given twice"):
        build_bento([echo, echo], tmp_path / "bento")
    other = replace(echo, name="other", python_version="3.12.1")
    with pytest.raises(InvalidInput, match=r"different Python versions: 3\.11, 3\.12"):
        build_bento([echo, other], tmp_path / "bento")


def test_a_lock_that_fails_leaves_nothing_behind(
    echo: ModelVersion, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("kfp_bento.runtime.bentos.build.lock_requirements", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_bento([echo], tmp_path / "bento", service=own)
    assert left_over(tmp_path) == []


def test_two_versions_of_one_model_share_a_bento(
    echo: ModelVersion, tmp_path: Path, quick_lock: None
) -> None:
    shutil.copytree(echo.directory, tmp_path / "newer")
    (tmp_path / "newer/conda.yaml").write_text("name: newer\n")
    newer = replace(load_model(tmp_path / "newer"), name="credit", version="4")
    models = [replace(echo, name="credit", version="3"), newer]
    bento = build_bento(models, tmp_path / "bento")
    schema = json.loads((bento.directory / "apis/schema.json").read_text())
    assert [r["route"] for r in schema["routes"]] == ["/predict/credit-3", "/predict/credit-4"]
    assert {m.tag for m in bento.models} == {
        f"credit:{m.content_digest.removeprefix('sha256:')[:16]}" for m in models
    }


def test_a_users_own_service_finds_its_model_by_name(
    tmp_path: Path, ask: Any, quick_lock: None
) -> None:
    model = samples.save_wine(tmp_path / "wine", **samples.QUICK)
    source = tmp_path / "own.py"
    source.write_text(
        "import bentoml\n"
        "with bentoml.importing():\n"
        "    import mlflow.pyfunc, pandas as pd\n"
        "@bentoml.service\n"
        "class OwnService:\n"
        "    wine = bentoml.models.BentoModel('wine:latest')\n"
        "    def __init__(self) -> None:\n"
        "        self.model = mlflow.pyfunc.load_model(self.wine.path)\n"
        "    @bentoml.api\n"
        "    def ask(self, rows: list[dict[str, float]]) -> list[int]:\n"
        "        return self.model.predict(pd.DataFrame(rows)).tolist()\n"
    )
    bento = build_bento([model], tmp_path / "bento", service=source)
    rows = json.loads(samples.wine_columns().tail(2).to_json(orient="records"))
    (answer,) = ask(bento.directory, {"rows": rows}, path="/ask")
    assert (bento.name, bento.service, answer) == ("own_service", "own:OwnService", (200, [2, 2]))
    assert [model.tag.partition(":")[0] for model in bento.models] == ["wine"]
