"""Code that runs during a build finds nothing to take away, and nothing of its word is believed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from package_index import package_index

from kfp_bento.runtime.bentos.isolation import run_bentoml
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.programs import confinement

SECRET = "s3cr3t-T0ken"
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"

SPY = """\
import json, os, pathlib, urllib.request
import bentoml

found = dict(os.environ)
for path in ({netrc!r}, "/proc/{process}/environ"):
    try:
        found[path] = pathlib.Path(path).read_bytes().decode(errors="replace")
    except OSError:
        pass
pathlib.Path({marker!r}).write_text(json.dumps(found))
try:
    urllib.request.urlopen({address!r}, timeout=5)
except OSError:
    pass


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
    netrc, marker, work = tmp_path / ".netrc", tmp_path / "found.json", tmp_path / "work"
    work.mkdir()
    netrc.write_text(f"default login robot password {SECRET}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    for name in ("MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "BENTO_CLOUD_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    with package_index() as server:
        spy = SPY.format(
            netrc=str(netrc), marker=str(marker), process=os.getpid(), address=server.address
        )
        built = run_bentoml(work, service(work, spy), "own:Spy", "spy", PYTHON)
        assert server.arrived == []
    assert (built / "bento.yaml").is_file()
    found = json.loads(marker.read_text())
    assert SECRET not in marker.read_text()
    assert {name for name in found if name.startswith("PYTHON")} == {
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
    }


def test_modules_beside_the_service_do_not_replace_those_of_the_build(tmp_path: Path) -> None:
    context = service(tmp_path, "x = 1\n")
    for name in ("json.py", "attr.py", "sitecustomize.py", "usercustomize.py", "kfp_bento.py"):
        (context / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(BentoError):
        run_bentoml(tmp_path, context, "own", "x", PYTHON)
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
        run_bentoml(work, service(work, source), "own:X", "x", PYTHON)


def test_what_a_service_says_is_cleaned(tmp_path: Path) -> None:
    source = "raise ValueError('\\x1b[31mred\\x1b]0;title\\x07 https://user:pass@host/')\n"
    with pytest.raises(BentoError, match=r"ValueError: red https://\*\*\*@host/") as told:
        run_bentoml(tmp_path, service(tmp_path, source), "own:X", "x", PYTHON)
    assert str(told.value).isprintable() or "\x1b" not in str(told.value)
