"""Weights as an image that KServe mounts, of the same layers as the bento's own."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bases import Root, debian
from containers import run
from handmade import MINOR, open_layer, read_json, read_manifest, starting_files, write, write_bento
from moving import base_of_layers, make_base, tar_of
from typer.testing import CliRunner

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.cli.application import app
from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images import ImageOptions, build_image, build_model_image, rebase_image

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

# What KServe's init container asks of such an image (pkg/utils/storage.go).
VALID = '[ -d /models ] && [ "$(ls -A /models)" ]'


def models_of(layout: Path) -> set[str]:
    manifest = read_manifest(layout)
    return {
        one["digest"]
        for one in manifest["layers"]
        if one.get("annotations", {}).get("kfp-bento.kind") == "model"
    }


def test_the_weights_are_the_layer_of_the_bento_s_own_image(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    options = ImageOptions(base=base)
    build_image(bento, f"oci:{tmp_path}/whole", options)
    first = build_model_image(bento, f"oci:{tmp_path}/model", options)
    again = build_model_image(bento, f"oci:{tmp_path}/again", options)
    assert models_of(tmp_path / "model") == models_of(tmp_path / "whole") != set()
    assert first.digest == again.digest
    assert [layer.kind for layer in first.layers] == ["base", "model", "source"]
    assert first.repository == f"localhost/{bento.models[0].tag.partition(':')[0]}"


def test_models_leads_to_the_files_wherever_the_root_is(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    image = build_model_image(bento, f"oci:{tmp_path}/model", ImageOptions(base=base))
    root = tmp_path / "root"
    root.mkdir()
    for layer in image.layers[-2:]:
        with open_layer(tmp_path / "model", layer) as tar:
            tar.extractall(root, filter=tarfile.tar_filter)
    assert not os.readlink(root / "models").startswith("/")  # noqa: PTH115
    tag = bento.models[0].tag.replace(":", "/")
    original = {
        path.relative_to(bento.directory / "models" / tag)
        for path in (bento.directory / "models" / tag).rglob("*")
    }
    assert {path.relative_to(root / "models") for path in (root / "models").rglob("*")} == original


def test_it_says_what_it_is_and_starts_nothing(bento: Bento, base: str, tmp_path: Path) -> None:
    build_model_image(bento, f"oci:{tmp_path}/model", ImageOptions(base=base))
    layout = tmp_path / "model"
    config = read_json(layout, read_manifest(layout)["config"]["digest"])["config"]
    (model,) = bento.models
    assert config["Labels"]["kfp-bento.models"] == f"{model.tag}@{model.digest}"
    assert config["Entrypoint"] in ([], None)
    assert "BENTO_PATH" not in " ".join(config["Env"])


def test_one_of_several_models_has_to_be_named(base: str, tmp_path: Path) -> None:
    folder = tmp_path / "bento"
    write_bento(folder)
    write(folder / "models" / "other" / "1" / "weights.bin", b"other")
    text = (folder / "bento.yaml").read_text()
    entry = "  - {tag: 'other:1', module: '', creation_time: '1980-01-01T00:00:00+00:00'}"
    (folder / "bento.yaml").write_text(text.replace("  models:\n", f"  models:\n{entry}\n", 1))
    bento = load_bento(folder)
    assert len(bento.models) == 2, text
    where = f"oci:{tmp_path}/model"
    for wanted in ("", "none"):
        with pytest.raises(InvalidInput, match="holds 2 models") as refused:
            build_model_image(bento, where, ImageOptions(base=base), model=wanted)
        assert "other:1" in refused.value.hint
    image = build_model_image(bento, where, ImageOptions(base=base), model="other")
    assert image.repository == "localhost/other"
    assert [layer.title for layer in image.layers if layer.kind == "model"] == ["model other:1"]


def test_system_packages_are_refused(bento: Bento, base: str, tmp_path: Path) -> None:
    options = ImageOptions(base=base, system_packages=("libgomp1",))
    with pytest.raises(InvalidInput, match="system packages"):
        build_model_image(bento, f"oci:{tmp_path}/model", options)


def test_the_command_makes_one(bento: Bento, base: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app,
        [
            *("image", "build", str(bento.directory), "--to", f"oci:{tmp_path}/model"),
            *("--base", base, "--model-only", "--json"),
        ],
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["digest"].startswith("sha256:")
    for more, told in (
        (["--model-only", "--dry-run"], "--model-only"),
        (["--model", "x"], "--model-only"),
    ):
        refused = CliRunner().invoke(
            app, ["image", "build", str(bento.directory), "--to", "oci:x", *more]
        )
        assert refused.exit_code == 2
        assert told in refused.output


def test_a_base_that_lacks_what_kserve_runs_in_it_is_refused(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    programs = starting_files()
    lacking = [tar_of({}, *(one for one in programs if one.name != "bin/sleep"))]
    variables = ["PATH=/usr/local/bin:/usr/bin:/bin", f"PYTHON_VERSION={MINOR}.1"]
    bare = base_of_layers(tmp_path / "bare", lacking, environment=variables)
    with pytest.raises(ImageError, match="no sleep on its path"):
        build_model_image(bento, f"oci:{tmp_path}/model", ImageOptions(base=bare))
    build_model_image(bento, f"oci:{tmp_path}/model", ImageOptions(base=base, tag="v1"))
    with pytest.raises(ImageError, match="no sleep on its path"):
        rebase_image(f"oci:{tmp_path}/model:v1", bare, destination=f"oci:{tmp_path}/other:v1")


def test_it_is_rebased_to_what_a_build_on_the_new_base_gives(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    newer = make_base(tmp_path / "newer", files={"etc/newer": b"1"})
    build_model_image(bento, f"oci:{tmp_path}/old", ImageOptions(base=base, tag="v1"))
    wanted = build_model_image(bento, f"oci:{tmp_path}/new", ImageOptions(base=newer, tag="v1"))
    rebased = rebase_image(f"oci:{tmp_path}/old:v1", newer, destination=f"oci:{tmp_path}/moved:v1")
    assert rebased.digest == wanted.digest


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["host", "bookworm"])
def test_what_kserve_runs_in_it_finds_the_model(
    kind: str, bento: Bento, podman: list[str], tmp_path: Path
) -> None:
    base = kind
    if kind == "bookworm":
        packages = ("python3-minimal", "libpython3-stdlib")
        base = Root(debian(tmp_path / "root", kind, *packages)).write(tmp_path / "base")
    build_model_image(bento, f"oci:{tmp_path}/model", ImageOptions(base=base, tag="v1"))
    run(podman, "--rm", f"oci:{tmp_path}/model:v1", "sh", "-c", VALID)
