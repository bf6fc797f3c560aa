"""Code that runs during a build finds nothing to take away, and nothing of its word is believed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from spy import kept_from_a_spy

from kfp_bento.runtime.bentos.isolation import run_bentoml
from kfp_bento.runtime.bentos.options import BentoOptions
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.programs import confinement

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
NOTHING = BentoOptions().wishes()

SERVED = """\
import bentoml


@bentoml.service
class Spy:
    @bentoml.api
    def look(self) -> int:
        return 1
"""


def service(work: Path, source: str) -> Path:
    (work / "context").mkdir()
    (work / "context/own.py").write_text(source)
    return work / "context"


@pytest.mark.skipif(not confinement._works("landlock"), reason="this kernel has no Landlock")
def test_the_code_of_a_service_sees_no_secrets_and_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    with kept_from_a_spy(tmp_path, monkeypatch) as spy:
        context = service(work, spy.source + SERVED)
        built = run_bentoml(work, context, "own:Spy", "spy", PYTHON, NOTHING)
    assert (built / "bento.yaml").is_file()
    assert {name for name in spy.environment if name.startswith("PYTHON")} == {
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
    }


def test_modules_beside_the_service_do_not_replace_those_of_the_build(tmp_path: Path) -> None:
    context = service(tmp_path, "x = 1\n")
    for name in ("json.py", "attr.py", "sitecustomize.py", "usercustomize.py", "kfp_bento.py"):
        (context / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(BentoError):
        run_bentoml(tmp_path, context, "own", "x", PYTHON, NOTHING)
    assert not (tmp_path / "ran").exists()


def test_a_service_cannot_say_where_its_bento_lies(tmp_path: Path) -> None:
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    elsewhere.mkdir()
    told = json.dumps({"path": str(elsewhere)})
    source = (
        f"import atexit, os, pathlib\n"
        f"pathlib.Path({str(work / 'result.json')!r}).write_text({told!r})\n"
        "os._exit(0)\n"
    )
    with pytest.raises(BentoError, match="cannot build the service"):
        run_bentoml(work, service(work, source), "own:X", "x", PYTHON, NOTHING)


def test_what_a_service_says_is_cleaned(tmp_path: Path) -> None:
    source = "raise ValueError('\\x1b[31mred\\x1b]0;title\\x07 https://user:pass@host/')\n"
    with pytest.raises(BentoError, match=r"ValueError: red https://\*\*\*@host/") as told:
        run_bentoml(tmp_path, service(tmp_path, source), "own:X", "x", PYTHON, NOTHING)
    assert str(told.value).isprintable() or "\x1b" not in str(told.value)
