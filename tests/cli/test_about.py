"""What the command says of itself, and to a shell that asks what may come next."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from kfp_bento_command import kfp_bento_here

from kfp_bento.runtime.cli.about import Shell
from kfp_bento.runtime.errors import KfpBentoError

ROOT = Path(__file__).parents[2]

# What bash does when Tab is pressed after some words: it calls the function that is registered.
ASK = """
source "$1"
shift
complete -p kfp-bento
COMP_WORDS=(kfp-bento "$@") COMP_CWORD=$#
$(complete -p kfp-bento | sed 's/.* -F \\([^ ]*\\) .*/\\1/') kfp-bento "${@: -1}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_the_version_is_that_of_the_distribution() -> None:
    done = kfp_bento_here("--version")
    assert (done.returncode, done.stdout) == (0, f"kfp-bento {version('kfp-bento')}\n")


def test_without_a_command_it_says_where_to_begin() -> None:
    done = kfp_bento_here()
    assert done.returncode == 0
    assert "kfp-bento demo" in done.stdout
    assert "kfp-bento install --registry" in done.stdout
    assert len(done.stdout.splitlines()) < 20


def test_python_runs_it_by_the_name_of_the_package() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kfp_bento", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"kfp-bento {version('kfp-bento')}\n"


def test_it_begins_without_what_only_some_command_needs() -> None:
    """A help page, and each Tab of a shell that completes, waits for all that is imported."""
    code = "import sys; from kfp_bento.runtime.cli import main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = [name.removeprefix("kfp_bento.runtime.") for name in done.stdout.split()]
    loaded = {name.partition(".")[0] for name in names}
    rooms = {path.parent.name for path in (ROOT / "runtime").glob("*/__init__.py")}
    assert loaded & (rooms | {"pydantic", "urllib3", "mlflow", "kfp", "kubernetes"}) == {
        *("cli", "files", "reports")
    }


def test_a_failure_names_its_page_and_has_no_colour_where_none_is_wanted() -> None:
    code = (
        "from kfp_bento.runtime.cli.output import print_error; "
        "from kfp_bento.runtime.errors import ModelError; "
        "print_error(ModelError('It is no model.'), as_json=False)"
    )
    said = {
        wanted: subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": wanted},
        ).stderr
        for wanted in ("", "1")
    }
    assert re.search(r"\x1b\[1;31mError:", said[""])
    assert not re.search(r"\x1b\[[\d;]*3\d", said["1"])
    assert "docs/models.md" in said["1"]


def test_the_pages_that_failures_name_are_there() -> None:
    kinds = {KfpBentoError}
    while more := {one for kind in kinds for one in kind.__subclasses__()} - kinds:
        kinds |= more
    pages = {kind.page for kind in kinds} - {""}
    assert len(pages) > 5
    assert {page for page in pages if not (ROOT / page).is_file()} == set()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "completion"
    file.write_text(kfp_bento_here("--completion", "bash").stdout)
    return file


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["bento", "pru"], ["prune"]),
        (["bento", "export", "--for"], ["--format"]),
    ],
)
def test_a_real_bash_completes_commands_and_options(
    words: list[str], offered: list[str], script: Path
) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK, "bash", str(script), *words],
        capture_output=True,
        text=True,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(script.parent)},
    )
    registered, *found = done.stdout.splitlines()
    assert registered == "complete -o default -F _kfp_bento_completion kfp-bento"
    assert found == offered, done.stderr


@pytest.mark.parametrize("shell", Shell)
def test_each_shell_that_is_here_takes_its_script(shell: Shell, tmp_path: Path) -> None:
    done = kfp_bento_here("--completion", shell.value)
    assert done.returncode == 0
    assert "_KFP_BENTO_COMPLETE=complete_" + shell.value in done.stdout
    program = shutil.which(shell.value)
    if program is None:
        pytest.skip(f"no {shell.value} on this machine")
    (tmp_path / "script").write_text(done.stdout)
    subprocess.run([program, "-n", str(tmp_path / "script")], check=True)


def test_another_shell_is_refused() -> None:
    done = kfp_bento_here("--completion", "tcsh")
    assert done.returncode == 2
    assert "'bash'" in done.stderr


def test_a_demo_proposes_no_program_that_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp_bento.runtime.cli.pipelines import next_commands

    monkeypatch.setenv("PATH", str(tmp_path))
    assert next_commands("build/demo", "t") == ["kfp-bento image sbom oci:build/demo/image:t"]
    (tmp_path / "podman").touch(0o755)
    assert next_commands("build/demo", "t")[0].startswith("podman run ")
