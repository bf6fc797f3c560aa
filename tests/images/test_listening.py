"""A service answers where releases expect it, whatever its bento or its base say of ports."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from containers import SECONDS
from handmade import MINOR, read_json, read_manifest, real_lock, write, write_bento
from moving import make_base
from test_base_fit import GOOD, base_of

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.errors import BentoError, ImageError
from kfp_bento.runtime.images import (
    ImageOptions,
    build_image,
    pack_image,
    plan_image,
    rebase_image,
)
from kfp_bento.runtime.proof import golden_answers

if TYPE_CHECKING:
    from pathlib import Path

    from kfp_bento.runtime.bentos import Bento

FIXED = {"PORT": "3000", "BENTOML_PORT": "3000", "BENTOML_HOST": "0.0.0.0"}
MOVING = ["PORT=8080", "BENTOML_PORT=9000", "BENTOML_HOST=127.0.0.1"]
LIMITS = ("--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:2048")
LEADING = ["PYTHONPATH=/opt/lib", "PYTHONHOME=/opt/python", "BENTOML_SERVE_COMPONENT=runner"]


def changed(bento: Bento, old: str, new: str) -> Bento:
    file = bento.directory / "bento.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return bento


def with_config(bento: Bento, config: str) -> Bento:
    return changed(bento, "  config: {}\n", f"  config: {config}\n")


def with_variable(bento: Bento, name: str, value: str) -> Bento:
    return changed(bento, "envs:\n", f"envs:\n- {{name: {name}, value: '{value}', stage: all}}\n")


def variables(layout: Path) -> dict[str, str]:
    config = read_json(layout, read_manifest(layout)["config"]["digest"])
    return dict(pair.partition("=")[::2] for pair in config["config"]["Env"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda bento: with_config(bento, "{http: {port: 5000}}"), "config.http.port: 5000"),
        (lambda bento: with_config(bento, "{http: {host: 127.0.0.1}}"), "config.http.host"),
        (lambda bento: with_variable(bento, "PORT", "8080"), "PORT=8080"),
        (lambda bento: with_variable(bento, "BENTOML_PORT", "9000"), "BENTOML_PORT=9000"),
        (lambda bento: with_variable(bento, "BENTOML_HOST", "127.0.0.1"), "BENTOML_HOST=127"),
    ],
    ids=["port", "host", "PORT", "BENTOML_PORT", "BENTOML_HOST"],
)
def test_where_a_bento_wants_to_listen_is_said_and_not_followed(
    bento: Bento, base: str, tmp_path: Path, change: Any, told: str
) -> None:
    change(bento)
    options = ImageOptions(base=base)
    plan = plan_image(bento, f"oci:{tmp_path}/out", options)
    image = build_image(bento, f"oci:{tmp_path}/out", options)
    assert variables(tmp_path / "out").items() >= FIXED.items()
    for notes in (plan.notes, image.notes):
        (note,) = [note for note in notes if told in note]
        assert "bento.yaml line" in note and "port 3000" in note


@pytest.mark.parametrize("config", ["{http: {port: 3000, host: 0.0.0.0}}", "{http: null}", "[]"])
def test_a_bento_that_listens_where_it_is_expected_needs_nothing(
    bento: Bento, base: str, tmp_path: Path, config: str
) -> None:
    plain = build_image(bento, f"oci:{tmp_path}/plain", ImageOptions(base=base))
    with_config(bento, config)
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert not FIXED.keys() & variables(tmp_path / "out").keys()
    assert image.notes == plain.notes == ()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{endpoints: {livez: /v1/livez, readyz: /v1/readyz}}", "below /v1"),
        ("{ssl: {enabled: true, certfile: a.pem}}", "speaks TLS"),
    ],
    ids=["prefix", "tls"],
)
def test_a_service_whose_health_nobody_would_find_is_refused(
    bento: Bento, base: str, tmp_path: Path, config: str, told: str
) -> None:
    with_config(bento, config)
    with pytest.raises(ImageError) as caught:
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert told in caught.value.message and "bento.yaml line" in caught.value.message
    assert caught.value.hint


def test_a_base_does_not_say_where_a_service_listens_or_what_it_imports(
    bento: Bento, tmp_path: Path
) -> None:
    plain = base_of(tmp_path / "plain", GOOD)
    moved = base_of(tmp_path / "moved", GOOD, environment=[*MOVING, *LEADING, "A=1"])
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=moved))
    found = variables(tmp_path / "out")
    names = {pair.partition("=")[0] for pair in (*MOVING, *LEADING)}
    assert found["A"] == "1" and not names & found.keys()
    (note,) = image.to_dict()["notes"]
    assert all(pair in note for pair in (*MOVING, *LEADING))
    # On that base by another way it is the same image, and that is said, too.
    build_image(bento, f"oci:{tmp_path}/first", ImageOptions(base=plain, tag="v1"))
    rebased = rebase_image(f"oci:{tmp_path}/first:v1", moved, destination=f"oci:{tmp_path}/other")
    assert rebased.digest == image.digest
    assert rebased.to_dict()["notes"] == [note]


def test_a_bento_may_say_itself_where_its_modules_are(bento: Bento, tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", GOOD, environment=["PYTHONPATH=/opt/lib"])
    with_variable(bento, "PYTHONPATH", "/home/bentoml/bento/src/lib")
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert variables(tmp_path / "out")["PYTHONPATH"] == "/home/bentoml/bento/src/lib"
    assert image.notes == ()


def test_steps_import_nothing_that_a_base_leads_to(tmp_path: Path) -> None:
    write(tmp_path / "lock.txt", "# nothing\n")
    base = make_base(tmp_path / "base", environment=("PYTHONPATH=/opt/lib",))
    image = pack_image(
        *(tmp_path / "lock.txt", f"oci:{tmp_path}/out", ImageOptions(base=base)),
        **{"name": "tools", "version": "1", "python": MINOR},
    )
    assert "PYTHONPATH" not in variables(tmp_path / "out")
    assert any("PYTHONPATH=/opt/lib" in note for note in image.notes)


@pytest.mark.slow
def test_it_answers_on_port_3000_whatever_its_code_says(
    podman: list[str], tmp_path: Path, shared_cache: Path
) -> None:
    bento = write_bento(tmp_path / "bento", real_lock(tmp_path))
    service = bento.directory / "src/service.py"
    moved = service.read_text().replace("@bentoml.service", '@bentoml.service(http={"port": 5000})')
    service.write_text(moved)
    with_config(bento, "{http: {port: 5000}}")
    with_variable(bento, "PORT", "8080")
    options = ImageOptions(base="host", cache=shared_cache)
    image = build_image(bento, f"oci:{tmp_path}/out", options)
    # In a network of its own, where nobody else has the port.
    command = [*podman, "run", "--detach", "--network", "none", "--user", "1034"]
    started = subprocess.run(
        [*command, *LIMITS, f"{image.location}:v1"], capture_output=True, text=True, check=False
    )
    if started.returncode != 0:
        pytest.skip(f"podman cannot run a container here: {started.stderr.strip()[-300:]}")
    container = started.stdout.strip()
    asking = "import urllib.request as r; r.urlopen('http://127.0.0.1:3000/readyz', timeout=2)"
    ask = [*podman, "exec", container, "/app/.venv/bin/python", "-c", asking]
    deadline = time.monotonic() + SECONDS
    try:
        while subprocess.run(ask, capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < deadline, "it is not ready on port 3000"
            time.sleep(0.2)
    finally:
        end = [*podman, "rm", "--force", "--time", "2", container]
        subprocess.run(end, capture_output=True, check=False)


def test_a_service_whose_health_nobody_would_find_is_not_waited_for(bento: Bento) -> None:
    with_config(bento, "{endpoints: {livez: /v1/livez, readyz: /v1/readyz}}")
    with pytest.raises(BentoError, match=r"tiny:v1 would be waited for in vain.*below /v1"):
        golden_answers(load_bento(bento.directory), [])
