"""Any text is refused as a requirement line, or uv reads exactly what was read here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kfp_bento.runtime.errors import BentoError, ImageError, plain_text
from kfp_bento.runtime.images.python.requirements import (
    installer_line,
    objections,
    requirement_lines,
)
from kfp_bento.runtime.requirements import (
    NAMES_ONLY,
    AllowedSources,
    allowed_sources,
    distribution_name,
    read_requirements,
    rendered,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

SHORT = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(SHORT, max_examples=20_000)

# Everything that some reader of lines takes for the end of one.
LINE_ENDS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
NAMES = ["six", "numpy", "Scikit_Learn", "ruamel.yaml", "mlflow", "a", "x-1", "Zope.Interface"]
PIECES = [
    *NAMES,
    *LINE_ENDS,
    *(
        " ",
        "  ",
        "\t",
        "\\",
        "\\\n",
        " \\\n ",
        "#",
        " # ",
        " #x\\\n",
        "\x00",
        "\x1b[31m",
        "\xa0",
        "\ufeff",
    ),
    *(
        "==1.0",
        ">=1",
        "<2,>=1",
        "~=1.4.2",
        "!=1.*",
        "===1",
        " ( >1 )",
        "==1!2.0.post1.dev3+local.1",
    ),
    *(
        "[a]",
        "[a,B-c]",
        "[",
        "]",
        "(",
        ")",
        ",",
        ";",
        "@",
        " @ ",
        "=",
        "'",
        '"',
        "${HOME}",
        "$HOME",
    ),
    *("; python_version > '3'", ' ; sys_platform == "win32" or extra == "x"', " and ", " or "),
    *("; platform_machine in 'x86_64 arm64'", "; os_name == '\"'", "; implementation_name != ''"),
    *("-r", "-e", "-c", "-i ", "-f ", "--index-url ", "--extra-index-url=", "--find-links="),
    *("--hash=sha256:" + "0" * 64, " --hash sha256:" + "f" * 64, "--hash=md5:0", "--pre"),
    *(" --config-settings x=y", "--only-binary :none:", "--no-binary=:all:", "--requirement "),
    *("https://", "http://", "file://", "file:", "git+https://", "good.invalid/whl/", "u:p@", "/"),
    *("..", "./", "../", "~/", "C:\\", "six-1.0-py3-none-any.whl", "six-1.0.tar.gz", "/etc/passwd"),
    *("constraints.txt", "/proc/self/environ", "\u0131", "\u212a", "\uff53ix", "\u0661", "\ud800"),
    *(
        "x @ git+https://",
        "good.invalid/team",
        "/thing.git",
        "@" + "0" * 40,
        "#subdirectory=",
        "@v1",
    ),
    "x @ git+https://good.invalid/team/x@" + "a" * 40,
]
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=9).map("".join)
sources = st.sampled_from(
    [
        AllowedSources(),
        allowed_sources(["https://good.invalid/whl/"]),
        AllowedSources(wheels=("https",), indexes=True),
        allowed_sources(["git+https://good.invalid/team"]),
    ]
)


def accepted(lines: Iterable[str], allowed: AllowedSources = NAMES_ONLY) -> list[str]:
    """What the installer would get of lines; nothing where one is refused."""
    try:
        reading = read_requirements(
            lines, whose="x", error=BentoError, sources=allowed, constraints="constraints.txt"
        )
    except BentoError as refused:
        assert refused.hint
        assert plain_text(str(refused)) == str(refused)
        return []
    for place in (*reading.indexes, *reading.pages):
        assert re.fullmatch(r"https?://[!-~]+", place)
        assert "@" not in place.partition("/whl/")[0]
    return [rendered(line) for line in reading.lines]


def check_lines(lines: list[str], allowed: AllowedSources) -> None:
    for line in accepted(lines, allowed):
        assert line.isascii()
        assert line.isprintable()
        assert len(line.splitlines()) == 1
        assert not line.startswith(("-", ".", "/", "~"))
        assert "${" not in line
        again = Requirement(line.partition(" --hash")[0])
        assert canonicalize_name(again.name) == distribution_name(line)
        if again.url and again.url.startswith("git+"):
            assert re.fullmatch(
                r"git\+https://good\.invalid(?::0*443)?/team(?:/[^#@]*)?@[0-9a-f]{40}(?:#.*)?",
                again.url,
                re.I,
            )
        else:
            assert not again.url or again.url.startswith("https://")
        assert accepted([line], allowed) == [line]


@SHORT
@given(st.lists(texts, max_size=4), sources)
def test_a_line_is_refused_or_one_requirement(lines: list[str], allowed: AllowedSources) -> None:
    check_lines(lines, allowed)


@pytest.mark.slow
@LONG
@given(st.lists(texts, max_size=4), sources)
def test_a_line_is_refused_or_one_requirement_at_length(
    lines: list[str], allowed: AllowedSources
) -> None:
    check_lines(lines, allowed)


def check_list(folder: Path, text: str) -> None:
    file = folder / "requirements.txt"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        if list(objections(file)):
            return
    except ImageError:  # no UTF-8
        return
    for line in requirement_lines(file):
        if line.startswith("-"):
            continue
        written = installer_line(line, Path("/x"))
        assert len(written.splitlines()) == 1
        assert written.isascii()
        assert "--hash=" in written
        place = Requirement(written.partition(" --hash")[0]).url
        assert not place or place.startswith(("https://", "file:///x/"))


hashed = st.tuples(texts, st.just(f" --hash=sha256:{'0' * 64}")).map("".join)
lists = st.lists(st.one_of(hashed, texts), max_size=4).map("\n".join)


@SHORT
@given(lists)
def test_a_list_of_a_bento_is_refused_or_plain(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    check_list(tmp_path_factory.getbasetemp(), text)


@pytest.mark.slow
@LONG
@given(lists)
def test_a_list_of_a_bento_is_refused_or_plain_at_length(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    check_list(tmp_path_factory.getbasetemp(), text)


@SHORT
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40), texts)
def test_what_is_shown_holds_no_account(secret: str, text: str) -> None:
    hidden = re.sub(r"[/@\s?#]", "", f"pw{secret}")
    assert f"{hidden}@" not in shown(f"{text} https://user:{hidden}@host/x")


# --- what uv itself reads

versions = st.sampled_from(["1", "1.0", "2.1.3rc1", "1!2.0", "0.5.post2", "3.0.dev1", "1.0+cpu"])
specifiers = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["==", "!="]), versions).map("".join),
        st.tuples(
            st.sampled_from([">=", "<=", ">", "<", "~="]),
            st.sampled_from(["1.0", "2.1.3", "1!2.0", "0.5.2"]),
        ).map("".join),
        st.just("==1.*"),
    ),
    max_size=3,
)
variables = st.sampled_from(["python_version", "python_full_version"])
comparisons = st.one_of(
    st.tuples(
        variables,
        st.sampled_from([">", "<=", ">=", "<", "=="]),
        st.sampled_from(["3.9", "3.12", "3"]),
    ),
    st.tuples(
        st.sampled_from(["sys_platform", "platform_machine", "platform_system", "os_name"]),
        st.sampled_from(["==", "!=", "in", "not in"]),
        st.sampled_from(["linux", "win32", "x86_64 aarch64", "Windows", "posix", ""]),
    ),
).map(lambda parts: f"{parts[0]} {parts[1]} '{parts[2]}'")
markers = st.recursive(
    comparisons,
    lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
        lambda parts: f"({parts[0]}) {parts[1]} {parts[2]}"
    ),
    max_leaves=4,
)
requirements = st.tuples(
    st.sampled_from(["", " ", "\t"]),
    st.sampled_from(["", "[a]", "[B, c_d]", "[]"]),
    specifiers,
    st.sampled_from(["{}", " {}", " ({})"]),
    st.one_of(st.just(""), markers.map(lambda marker: f" ; {marker}")),
    st.sampled_from(["", "  # note", " \\"]),
)
ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.4",
        "sys_platform": system,
        "platform_machine": machine,
        "platform_system": {"linux": "Linux", "win32": "Windows"}[system],
        "os_name": {"linux": "posix", "win32": "nt"}[system],
    }
    for python in ("3.9", "3.10", "3.12")
    for system in ("linux", "win32")
    for machine in ("x86_64", "aarch64")
]


def built_line(name: str, parts: tuple[str, str, list[str], str, str, str]) -> str:
    gap, extras, wanted, form, marker, end = parts
    together = form.format(",".join(wanted)) if wanted else ""
    return f"{gap}{name}{extras}{together}{marker}{end}"


def read_by_uv(lines: list[str], folder: Path) -> list[str]:
    """What uv reads of a requirements file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "reader"\nversion = "1"\nrequires-python = ">=3.8"\ndependencies = []\n'
    )
    (folder / "lines.txt").write_text("".join(f"{line}\n" for line in lines))
    subprocess.run(
        [
            *(sys.executable, "-m", "uv", "add", "--frozen", "--raw", "--offline"),
            *("--no-config", "--quiet", "--requirements", "lines.txt"),
        ],
        cwd=folder,
        check=True,
    )
    document = tomllib.loads((folder / "pyproject.toml").read_text())
    found: list[str] = document["project"]["dependencies"]
    return found


def meaning(requirement: Requirement) -> tuple[object, ...]:
    marker = requirement.marker
    return (
        canonicalize_name(requirement.name),
        {canonicalize_name(extra) for extra in requirement.extras},
        requirement.specifier,
        [marker is None or marker.evaluate(environment) for environment in ENVIRONMENTS],
    )


def check_with_uv(parts: list[tuple[str, str, list[str], str, str, str]], folder: Path) -> None:
    raw = [built_line(f"p{number}", part) for number, part in enumerate(parts)]
    ours = [line for one in raw for line in accepted([one])]
    assert len(ours) == len(raw)
    read = {canonicalize_name(Requirement(line).name): line for line in read_by_uv(ours, folder)}
    for line in ours:
        wanted = Requirement(line)
        assert meaning(Requirement(read[canonicalize_name(wanted.name)])) == meaning(wanted), line


@settings(SHORT, max_examples=4)
@given(st.lists(requirements, min_size=25, max_size=50))
def test_uv_reads_what_was_read(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[tuple[str, str, list[str], str, str, str]],
) -> None:
    check_with_uv(parts, tmp_path_factory.getbasetemp() / "uv")


@pytest.mark.slow
@settings(SHORT, max_examples=150)
@given(st.lists(requirements, min_size=50, max_size=100))
def test_uv_reads_what_was_read_at_length(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[tuple[str, str, list[str], str, str, str]],
) -> None:
    check_with_uv(parts, tmp_path_factory.getbasetemp() / "uv")
