"""What bentos ask of their image, as BentoML itself writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade import write, write_bento, write_wheel
from small_wheels import bentoml_line

from kfp_bento.runtime.errors import BentoError, ImageError
from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.images.assembly.qualify import qualify

SERVICE = """\
import bentoml


@bentoml.service{decorator}
class Tiny:
    @bentoml.api
    def echo(self, text: str) -> str:
        return text
"""
OLD_STYLE = 'service: "service:Tiny"\npython: {packages: [numpy], lock_packages: false}\n'


# `bentoml build` in children that have BentoML loaded already.
FORKING = """
import json, os, sys, traceback
import bentoml.bentos
from bentoml_cli.cli import cli

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["BENTOML_HOME"] = job["home"]
        os.chdir(job["source"])
        sys.argv = ["bentoml", "build", *job["arguments"]]
        status = 1
        try:
            cli()
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Bentoml:
    """Builds bentos with the installed BentoML, in a process that is started once."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def build(self, folder: Path, *arguments: str) -> Path:
        """Give the bento made of `source` in a folder."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        places = {"source": f"{folder}/source", "home": f"{folder}/home", "log": f"{folder}/log"}
        print(json.dumps({**places, "arguments": arguments}), file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "0\n", (folder / "log").read_text()
        return next((folder / "home/bentos").glob("*/*/bento.yaml")).parent

    def __call__(self, folder: Path, *, image: str = "", bentofile: str = "") -> Path:
        """Give a bento, locked with hashes as ours are."""
        options = f"image=bentoml.images.Image(lock_python_packages=False){image}"
        decorator = f"({options})" if image else ""
        write(folder / "source/service.py", SERVICE.format(decorator=decorator))
        write(folder / "source/setup.sh", "#!/bin/sh\ntrue\n").chmod(0o755)
        write(folder / "source/Dockerfile.template", "{% extends bento_base_template %}\n")
        write(folder / "source/extra.txt", "numpy==1.26.4\n")
        if bentofile:
            write(folder / "source/bentofile.yaml", bentofile)
        bento = self.build(folder, *([] if bentofile else ["service:Tiny"]))
        requirements = bento / "env/python/requirements.txt"
        (folder / "unlocked.txt").write_text(requirements.read_text())
        digest = write_wheel(bento / "src/wheels/greeter-1.0-py3-none-any.whl")
        greeter = f"./wheels/greeter-1.0-py3-none-any.whl --hash=sha256:{digest}\n"
        requirements.write_text(f"{greeter}{bentoml_line(bento)}")
        return bento


@pytest.fixture(scope="module")
def built() -> Iterator[Bentoml]:
    """Gives `built(folder, image=…, bentofile=…)`: a bento as BentoML itself writes it."""
    command = [sys.executable, "-c", FORKING]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield Bentoml(process)
    process.communicate()


def line_of(bento: Path, text: str, file: str = "bento.yaml") -> int:
    lines = (bento / file).read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def refusal(bento: Path) -> ImageError:
    with pytest.raises(ImageError) as failure:
        qualify(bento)
    return failure.value


def test_packages_that_an_image_asks_for_are_wishes(built: Bentoml, tmp_path: Path) -> None:
    bento = built(tmp_path, image='.system_packages("libgomp1", "curl=7.88.1-10").run("ls")')
    file = bento / "bento.yaml"
    file.write_text(file.read_text().replace("  - ls\n", ""))
    wishes = qualify(bento)
    assert wishes.system_packages == ("libgomp1", "curl=7.88.1-10")
    assert wishes.notes == (
        "left out, since wheels do not need them: ca-certificates gnupg2 bash build-essential git",
    )


def test_a_command_of_an_image_is_named_with_its_line(built: Bentoml, tmp_path: Path) -> None:
    steps = '.run("echo before").python_packages("numpy").run("echo after")'
    bento = built(tmp_path, image=steps)
    error = refusal(bento)
    before, after = line_of(bento, "- echo before"), line_of(bento, "- echo after")
    assert f"bento.yaml line {before}: image.commands runs a command: echo before" in error.message
    assert f"bento.yaml line {after}: image.post_commands runs a command" in error.message
    assert "base image" in error.hint
    assert "bento-request" in error.hint


def test_a_script_of_an_image_is_named_with_its_line(built: Bentoml, tmp_path: Path) -> None:
    bento = built(tmp_path, image='.run_script("setup.sh")')
    line = line_of(bento, "script__")
    assert f"bento.yaml line {line}: image.commands runs a script" in refusal(bento).message


def test_another_distribution_is_named(built: Bentoml, tmp_path: Path) -> None:
    bento = built(tmp_path, image="", bentofile="service: service:Tiny\ndocker: {distro: alpine}\n")
    assert "another distribution than Debian: apk add" in refusal(bento).message


def test_requirements_as_bentoml_writes_them_are_named_by_file_and_line(
    built: Bentoml, tmp_path: Path
) -> None:
    bento = built(tmp_path, image='.requirements_file("extra.txt")')
    requirements = bento / "env/python/requirements.txt"
    requirements.write_text((tmp_path / "unlocked.txt").read_text())
    line = line_of(bento, "numpy==1.26.4", "env/python/requirements.txt")
    error = refusal(bento)
    assert f"env/python/requirements.txt line {line}: the requirements are not" in error.message
    assert "numpy==1.26.4" in error.message
    assert f"kfp-bento bento import {bento} --to tiny-imported" in error.hint


@pytest.mark.parametrize(
    ("options", "key", "way_out"),
    [
        ("docker: {setup_script: ./setup.sh, cuda_version: '12'}", "setup_script", "base image"),
        ("docker: {cuda_version: '12'}", "cuda_version", "wheels"),
        ("docker: {dockerfile_template: Dockerfile.template}", "dockerfile_template", "base image"),
        ("conda: {pip: [numpy]}", "pip", "--without conda"),
    ],
)
def test_options_of_a_build_file_are_named_with_their_line(
    built: Bentoml, tmp_path: Path, options: str, key: str, way_out: str
) -> None:
    bento = built(tmp_path, bentofile=f"{OLD_STYLE}{options}\n")
    error = refusal(bento)
    section = options.partition(":")[0]
    assert f"bento.yaml line {line_of(bento, f'  {key}:')}: {section}.{key}: " in error.message
    assert way_out in error.hint


def test_packages_of_a_build_file_are_wishes_in_both_forms_of_bentos(
    built: Bentoml, tmp_path: Path
) -> None:
    options = "docker: {system_packages: [libgomp1]}\n"
    new = built(tmp_path / "new", bentofile=f"{OLD_STYLE}{options}")
    assert "\nimage:" in (new / "bento.yaml").read_text()
    assert qualify(new).system_packages == ("libgomp1",)
    # BentoML writes the old form for what the new one cannot say.
    template = "docker: {system_packages: [libgomp1], dockerfile_template: Dockerfile.template}\n"
    old = built(tmp_path / "old", bentofile=f"{OLD_STYLE}{template}")
    file = old / "bento.yaml"
    file.write_text(file.read_text().replace(": Dockerfile.template", ": null"))
    assert "\ndocker:" in file.read_text()
    assert qualify(old).system_packages == ("libgomp1",)


def test_a_build_stage_secret_is_no_obstacle(built: Bentoml, tmp_path: Path) -> None:
    envs = "envs:\n- {name: TOKEN, value: hush, stage: build}\n"
    wishes = qualify(built(tmp_path, bentofile=f"service: service:Tiny\n{envs}"))
    assert "the build-stage variable TOKEN is not needed" in wishes.notes
    assert "TOKEN" not in wishes.environment
    assert "hush" not in str(wishes)


# --- what BentoML does not write by itself -------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "apt-get install -q -y -o Dpkg::Options::=--force-confdef curl && reboot",
        "apt-get install -q -y -o Dpkg::Options::=--force-confdef --allow-downgrades curl",
        "apt-get install -q -y -o Dpkg::Options::=--force-confdef ./local.deb",
        "apt-get install -q -y -o Dpkg::Options::=--force-confdef",
        "apt-get install -y curl",
        "apt-get update && apt-get install -q -y --no-install-recommends "
        "--allow-remove-essential ca-certificates nmap",
    ],
)
def test_only_bentomls_own_way_to_install_packages_is_understood(
    tmp_path: Path, command: str
) -> None:
    bento = write_bento(tmp_path / "bento").directory
    file = bento / "bento.yaml"
    file.write_text(file.read_text().replace("\n  commands: []", f"\n  commands: ['{command}']"))
    assert "image.commands runs a command: apt-get" in refusal(bento).message


@pytest.mark.parametrize(
    ("requirement", "what"),
    [
        ("git+https://git.example/a.git@1", "comes from version control"),
        ("a @ git+ssh://git@git.example/a.git", "comes from version control"),
        ("-e ./src", "is editable"),
        ("--editable=./src", "is editable"),
        ("./wheels/a-1.0.tar.gz", "is a source distribution"),
        ("a @ https://files.example/a-1.0.zip#sha256=00", "is a source distribution"),
        ("./a", "is a source distribution"),
        ("./wheels/a-1.0.tar.gz --hash=sha256:00", "is a source distribution"),
    ],
)
def test_what_is_no_wheel_is_named_by_file_and_line(
    tmp_path: Path, requirement: str, what: str
) -> None:
    bento = write_bento(tmp_path / "bento").directory
    file = bento / "env/python/requirements.txt"
    file.write_text(f"# by hand\nnumpy==2.0 \\\n    --hash=sha256:00\n{requirement}\n")
    error = refusal(bento)
    assert "env/python/requirements.txt line 4: " in error.message
    assert what in error.message
    assert "wheel" in error.hint


def test_an_archive_is_answered_with_the_command_that_takes_it_in(tmp_path: Path) -> None:
    archive = write(tmp_path / "exp/a.bento", b"archive")
    with pytest.raises(BentoError, match="is a file, not the directory") as failure:
        qualify(archive)
    assert f"kfp-bento bento import {archive} --to a" in failure.value.hint


def test_a_missing_python_version_is_named(tmp_path: Path) -> None:
    bento = write_bento(tmp_path / "bento").directory
    file = bento / "bento.yaml"
    kept = [line for line in file.read_text().splitlines() if "python_version" not in line]
    file.write_text("\n".join(kept))
    line = line_of(bento, "image:")
    message = refusal(bento).message
    assert f"bento.yaml line {line}: image.python_version is missing" in message


def test_a_model_that_is_fetched_later_is_named_with_its_line(tmp_path: Path) -> None:
    bento = write_bento(tmp_path / "bento").directory
    file = bento / "bento.yaml"
    text = file.read_text().replace(
        "    module: ''\n", "    module: ''\n    registry: huggingface\n"
    )
    file.write_text(text)
    line = line_of(bento, "- tag: factor")
    message = refusal(bento).message
    assert f"bento.yaml line {line}: model factor:0123456789abcdef is fetched from hug" in message


def test_all_reasons_are_given_at_once_and_each_has_its_way_out(tmp_path: Path) -> None:
    bento = write_bento(tmp_path / "bento").directory
    file = bento / "bento.yaml"
    text = file.read_text().replace("\n  commands: []", "\n  commands: ['make']")
    file.write_text(f"{text}conda: {{pip: [numpy]}}\n")
    lock = "".join(f"package-{number}==1\n" for number in range(9))
    (bento / "env/python/requirements.txt").write_text(f"{lock}./a.tar.gz\n")
    error = refusal(bento)
    for part in ("runs a command: make", "conda.pip", "a.tar.gz", "package-0", "6 more require"):
        assert part in error.message
    for part in ("base image", "--without commands --without conda", "wheel"):
        assert part in error.hint


@pytest.mark.parametrize("lock", ["", "greeter==1.0 --hash=sha256:{0}\n", "# bentoml==1.4.39\n"])
def test_a_lock_without_bentoml_makes_no_image(tmp_path: Path, lock: str) -> None:
    bento = write_bento(tmp_path / "bento").directory
    (bento / "env/python/requirements.txt").write_text(lock.format("0" * 64))
    with pytest.raises(ImageError, match="bentoml is not in it") as caught:
        qualify(bento)
    assert "with bentoml among the requirements" in (caught.value.hint or "")


def test_a_lock_whose_bentoml_is_for_others_makes_no_image(tmp_path: Path, base: str) -> None:
    bento = write_bento(tmp_path / "bento")
    file = bento.directory / "env/python/requirements.txt"
    line = bentoml_line(bento.directory)
    marked = line.replace(" ", " ; python_version < '3' ", 1)
    assert line in file.read_text()
    file.write_text(file.read_text().replace(line, marked))
    with pytest.raises(ImageError, match="gives no bentoml, which starts the service"):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
