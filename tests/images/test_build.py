"""Images in OCI layouts: what is in them, that they repeat, that failures leave nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import MINOR, open_layer, read_json, read_manifest, write_base, write_bento

from kfp_bento.runtime.concurrency import Approval, Stopped
from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images import Image, ImageOptions, build_image, plan_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfp_bento.runtime.bentos import Bento


def config_of(layout: Path) -> dict[str, Any]:
    return read_json(layout, read_manifest(layout)["config"]["digest"])


def test_an_image_has_base_dependencies_models_and_source(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert [layer.kind for layer in image.layers] == [
        *("base", "dependencies", "dependencies", "model", "source")
    ]
    titles = [layer.title for layer in image.layers[1:3]]
    assert titles == ["wheels: bentoml and greeter", f"environment (Python {MINOR})"]
    assert image.repository == "localhost/tiny"
    assert image.tags == ("v1",)
    assert image.location == f"oci:{tmp_path}/out"
    manifest = read_manifest(tmp_path / "out")
    assert [x["digest"] for x in manifest["layers"]] == [layer.digest for layer in image.layers]
    assert config_of(tmp_path / "out")["rootfs"]["diff_ids"] == [x.diff_id for x in image.layers]


def test_layers_that_a_fresh_layout_gets_are_not_there_already(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    built = build_image(bento, f"oci:{tmp_path / 'image'}", ImageOptions(base=base))
    placed = {layer.placement for layer in built.layers if layer.kind != "base"}
    assert placed == {"sent"}


def test_an_image_survives_as_json(bento: Bento, base: str, tmp_path: Path) -> None:
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert Image.from_dict(json.loads(json.dumps(image.to_dict()))) == image


def test_the_configuration_is_that_of_bentomls_dockerfile(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    config = config_of(tmp_path / "out")["config"]
    environment = dict(pair.split("=", 1) for pair in config["Env"])
    assert config["User"] == "1034:1034"
    assert config["WorkingDir"] == "/home/bentoml/bento"
    assert config["Entrypoint"] == ["/home/bentoml/bento/env/docker/entrypoint.sh"]
    assert set(config["ExposedPorts"]) == {"3000/tcp", "3001/tcp"}
    assert "Cmd" not in config
    assert environment["PATH"] == "/app/.venv/bin:/usr/local/bin:/usr/bin:/bin"
    assert environment["BENTO_PATH"] == "/home/bentoml/bento"
    assert environment["BENTOML_HOME"] == "/home/bentoml/"
    assert (environment["A"], environment["GREETING"]) == ("1", "hello")
    assert config["Labels"]["from"] == "base"


def test_there_is_no_clock_path_or_run_in_an_image(bento: Bento, base: str, tmp_path: Path) -> None:
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    config = config_of(tmp_path / "out")
    assert config["created"] == "1980-01-01T00:00:00Z"
    assert len([x for x in config["history"] if not x.get("empty_layer")]) == 5
    assert str(tmp_path) not in json.dumps([config, read_manifest(tmp_path / "out")])


def text_in(layer: tarfile.TarFile, name: str) -> str:
    member = layer.extractfile(f"app/.venv/{name}")
    assert member is not None
    return member.read().decode()


def test_the_environment_is_a_real_one_and_forgets_this_machine(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    with open_layer(tmp_path / "out", image.layers[2]) as layer:
        assert "home = /usr/local/bin" in text_in(layer, "pyvenv.cfg")
        assert "VIRTUAL_ENV=/app/.venv" in text_in(layer, "bin/activate")
        python = layer.getmember("app/.venv/bin/python")
        assert python.linkname == f"/usr/local/bin/python{bento.python_version}"
    with open_layer(tmp_path / "out", image.layers[1]) as layer:
        packages = f"lib/python{bento.python_version}/site-packages"
        assert text_in(layer, "bin/greet").startswith("#!/app/.venv/bin/python\n")
        assert text_in(layer, "share/greeter/motto.txt") == "be kind\n"
        names = layer.getnames()
        assert not [x for x in names if x.endswith((".lock", "direct_url.json", "uv_cache.json"))]
        record = text_in(layer, f"{packages}/greeter-1.0.dist-info/RECORD")
        for line in record.splitlines():
            path = os.path.normpath(f"app/.venv/{packages}/{line.split(',')[0]}")
            assert path in names


def test_bytecode_does_not_depend_on_file_times(bento: Bento, base: str, tmp_path: Path) -> None:
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    with open_layer(tmp_path / "out", image.layers[1]) as layer:
        compiled = [x for x in layer.getmembers() if x.name.endswith(".pyc")]
        content = layer.extractfile(compiled[0])
        assert content is not None
        flags = int.from_bytes(content.read()[4:8], "little")
    assert flags == 0b01


def test_the_source_layer_has_no_models_no_record_and_no_noise(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    with open_layer(tmp_path / "out", image.layers[-1]) as layer:
        names = layer.getnames()
        script = layer.getmember("home/bentoml/bento/env/docker/entrypoint.sh")
    assert script.mode == 0o755
    assert "home/bentoml/bento/bento.yaml" in names
    assert "home/bentoml/bento/models/factor/latest" in names
    assert not [x for x in names if "factor.txt" in x or "__pycache__" in x or ".kfp-bento" in x]
    # BentoML makes these at start, which a read-only root forbids.
    assert {f"home/bentoml/{x}" for x in ("bentos", "envs", "models", "tmp")} <= set(names)


def test_only_directories_that_are_ours_are_written(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    for layer in image.layers[1:]:
        with open_layer(tmp_path / "out", layer) as archive:
            assert all(
                x == "app" or x.startswith(("app/", "home/bentoml")) for x in archive.getnames()
            )


def test_models_are_never_compressed(bento: Bento, base: str, tmp_path: Path) -> None:
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base, compression="gzip"))
    assert [layer.media_type.rpartition("layer.v1.")[2] for layer in image.layers] == [
        *("tar+gzip", "tar+gzip", "tar+gzip", "tar", "tar+gzip")
    ]


def test_a_changed_source_changes_the_source_layer_only(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    before = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    (bento.directory / "src/service.py").write_text("# changed\n")
    after = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert before.layers[:-1] == after.layers[:-1]
    assert before.layers[-1].digest != after.layers[-1].digest


BUILD = """
import sys
from pathlib import Path
from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.images import ImageOptions, build_image
options = ImageOptions(base=sys.argv[3])
print(build_image(load_bento(Path(sys.argv[1])), sys.argv[2], options).digest)
"""


def test_unpacked_by_another_tool_it_is_what_was_packed(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    umoci = shutil.which("umoci")
    if umoci is None:
        pytest.skip("umoci is not installed")
    # umoci of Debian 12 knows no zstd.
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base, compression="gzip"))
    target = tmp_path / "bundle"
    subprocess.run(
        [umoci, "unpack", "--rootless", "--image", f"{tmp_path}/out:v1", target],
        check=True,
        capture_output=True,
    )
    found = target / "rootfs/home/bentoml/bento"
    for file in bento.directory.rglob("*"):
        inside = file.relative_to(bento.directory)
        if file.is_file() and "__pycache__" not in inside.parts and inside.name[0] != ".":
            assert (found / inside).read_bytes() == file.read_bytes(), inside
    packed = {
        name for layer in image.layers for name in open_layer(tmp_path / "out", layer).getnames()
    }
    unpacked = {
        path.relative_to(target / "rootfs").as_posix() for path in (target / "rootfs").rglob("*")
    }
    parents = {"bin", "etc", "home", "usr", "usr/bin", "usr/local", "usr/local/bin"}
    assert unpacked - packed <= parents
    assert packed <= unpacked


def test_skopeo_reads_the_layout(bento: Bento, base: str, tmp_path: Path) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    done = subprocess.run(
        [skopeo, "inspect", f"oci:{tmp_path}/out:v1"], check=True, capture_output=True
    )
    assert json.loads(done.stdout)["Digest"] == image.digest


def test_a_docker_base_becomes_an_oci_image(bento: Bento, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", docker_types=True)
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    manifest = read_manifest(tmp_path / "out")
    types = [manifest["mediaType"], manifest["config"]["mediaType"]]
    types += [layer["mediaType"] for layer in manifest["layers"]]
    assert all(x.startswith("application/vnd.oci.image.") for x in types)


def test_the_wanted_platform_is_taken_from_an_index(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    image = build_image(
        bento, f"oci:{tmp_path}/out", ImageOptions(base=base, platform="linux/arm64")
    )
    assert config_of(tmp_path / "out")["architecture"] == "arm64"
    with open_layer(tmp_path / "out", image.layers[0]) as layer:
        assert "etc/arm64" in layer.getnames()


def test_a_base_without_the_platform_is_refused(bento: Bento, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", architectures=("amd64",))
    with pytest.raises(ImageError, match=r"no image for linux/arm64, only for linux/amd64"):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base, platform="linux/arm64"))


def test_a_base_with_another_python_is_refused(bento: Bento, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", python="3.8.1")
    with pytest.raises(ImageError, match=r"there is /usr/local/bin/python3\.8"):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))


def test_a_base_that_lies_about_its_content_is_refused(bento: Bento, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", architectures=("amd64",))
    for blob in (tmp_path / "base/blobs/sha256").iterdir():
        if blob.read_bytes()[:2] == b"\x1f\x8b":
            blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(ImageError, match=r"bytes that are not|cannot be decompressed"):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base, platform="linux/amd64"))
    assert not (tmp_path / "out").exists()


def test_a_second_build_reuses_the_dependencies(bento: Bento, base: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = build_image(bento, f"oci:{tmp_path}/one", ImageOptions(base=base, cache=cache))
    second = build_image(bento, f"oci:{tmp_path}/two", ImageOptions(base=base, cache=cache))
    made, reused = ["built", "built"], ["reused", "reused"]
    assert [layer.origin for layer in first.layers] == ["base", *made, "built", "built"]
    assert [layer.origin for layer in second.layers] == ["base", *reused, "built", "built"]
    assert second.digest == first.digest


def test_a_damaged_cache_is_not_used(bento: Bento, base: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = build_image(bento, f"oci:{tmp_path}/one", ImageOptions(base=base, cache=cache))
    shutil.rmtree(tmp_path / "one")
    blob = cache / "blobs/sha256" / first.layers[1].digest.removeprefix("sha256:")
    blob.write_bytes(bytes(len(blob.read_bytes())))
    second = build_image(bento, f"oci:{tmp_path}/two", ImageOptions(base=base, cache=cache))
    assert second.digest == first.digest
    assert second.layers[1].origin == "built"


def test_a_wheel_that_is_not_the_locked_one_is_refused(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    build_image(bento, f"oci:{tmp_path}/one", ImageOptions(base=base, cache=cache))
    wheel = bento.directory / "src/wheels/greeter-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("intruder.py", "")
    with pytest.raises(ImageError, match=r"(?i)hash"):
        build_image(bento, f"oci:{tmp_path}/two", ImageOptions(base=base, cache=cache))


def test_the_same_image_again_leaves_the_directory_alone(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    before = (tmp_path / "out").stat().st_ino
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert (tmp_path / "out").stat().st_ino == before


def test_another_image_replaces_the_old_one(bento: Bento, base: str, tmp_path: Path) -> None:
    old = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    (bento.directory / "src/service.py").write_text("# changed\n")
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    blobs = {path.name for path in (tmp_path / "out/blobs/sha256").iterdir()}
    assert old.layers[-1].digest.removeprefix("sha256:") not in blobs
    assert leftovers(tmp_path) == []


def leftovers(folder: Path) -> list[str]:
    return [x.name for x in folder.rglob("*") if ".partial-" in x.name or ".old-" in x.name]


@pytest.mark.parametrize("kind", ["file", "folder", "layout"])
def test_what_we_did_not_write_is_never_replaced(
    bento: Bento, base: str, tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "mine"
    if kind == "file":
        target.write_text("precious")
    elif kind == "folder":
        target.mkdir()
        (target / "thesis.txt").write_text("precious")
    else:
        write_base(target)
    with pytest.raises(ImageError):
        build_image(bento, f"oci:{target}", ImageOptions(base=base))
    assert target.exists()
    assert leftovers(tmp_path) == []


def test_an_interrupted_build_leaves_nothing(bento: Bento, base: str, tmp_path: Path) -> None:
    def interrupt(sentence: str) -> None:
        if sentence.startswith("packing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_image(
            bento,
            f"oci:{tmp_path}/out",
            ImageOptions(base=base, cache=tmp_path / "cache"),
            progress=interrupt,
        )
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []


def test_an_interrupted_build_keeps_the_old_image(bento: Bento, base: str, tmp_path: Path) -> None:
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    (bento.directory / "src/service.py").write_text("# changed\n")

    def interrupt(sentence: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base), progress=interrupt)
    index = json.loads((tmp_path / "out/index.json").read_bytes())
    assert index["manifests"][0]["digest"] == image.digest
    assert leftovers(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small tmpfs")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_named_and_nothing_is_left(bento: Bento, base: str, tiny_disk: Path) -> None:
    (bento.directory / "models/factor/0123456789abcdef/weights.bin").write_bytes(bytes(2 << 20))
    with pytest.raises(ImageError, match="disk is full"):
        build_image(bento, f"oci:{tiny_disk}/out", ImageOptions(base=base))
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "commands: []",
            "commands: ['apt-get install -y nmap']",
            "commands runs a command: apt-get",
        ),
        (
            "commands: []",
            "commands: ['chmod +x ./env/docker/script__1 && ./env/docker/script__1']",
            "runs a script",
        ),
        ("post_commands: []", "post_commands: ['python -m nltk.downloader all']", "post_commands"),
        ("spec: 2", "conda: {environment_yml: env.yml}", r"conda\.environment_yml: env\.yml"),
        ("spec: 2", "docker: {dockerfile_template: D.j2}", "dockerfile_template: D.j2"),
        ("spec: 2", "docker: {cuda_version: '12'}", "cuda_version: 12"),
        ("models: []", "models: [{tag: 'absent:1'}]", "model absent:1 is not in the directory"),
    ],
)
def test_a_bento_that_needs_commands_is_refused_with_the_line(
    bento: Bento, base: str, tmp_path: Path, old: str, new: str, reason: str
) -> None:
    file = bento.directory / "bento.yaml"
    indent = "" if old in ("spec: 2", "models: []") else "  "
    file.write_text(file.read_text().replace(f"\n{indent}{old}", f"\n{indent}{new}"))
    with pytest.raises(ImageError, match=reason) as failure:
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    way_out = "kfp-bento bento import" if old == "models: []" else "bento-request"
    assert way_out in failure.value.hint
    assert not (tmp_path / "out").exists()


def test_bentomls_own_apt_line_is_no_obstacle(bento: Bento, base: str, tmp_path: Path) -> None:
    from bentoml._internal.container.frontend.dockerfile import CONTAINER_METADATA

    line = CONTAINER_METADATA["debian"]["default_install_command"]
    file = bento.directory / "bento.yaml"
    file.write_text(file.read_text().replace("\n  commands: []", f"\n  commands: ['{line}']"))
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))


def test_requirements_without_hashes_are_refused(bento: Bento, base: str, tmp_path: Path) -> None:
    (bento.directory / "env/python/requirements.txt").write_text("bentoml==1.4.39\n")
    with pytest.raises(ImageError, match=r"not locked with hashes: 'bentoml==1\.4\.39'"):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))


def test_what_uv_says_is_passed_on(bento: Bento, base: str, tmp_path: Path) -> None:
    requirements = bento.directory / "env/python/requirements.txt"
    with requirements.open("a") as file:
        file.write(f"./wheels/absent-1.0-py3-none-any.whl --hash=sha256:{'0' * 64}\n")
    with pytest.raises(ImageError, match=r"absent-1\.0"):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base, cache=tmp_path / "cache"))
    assert not (tmp_path / "cache/records").exists()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "options",
    [{"compression": "lzma"}, {"platform": "windows/amd64"}, {"tag": "no spaces"}],
)
def test_wrong_options_are_named(
    bento: Bento, base: str, tmp_path: Path, options: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base, **options))
    assert leftovers(tmp_path) == []


def test_a_bento_for_another_python_gets_no_bytecode_and_says_so(tmp_path: Path) -> None:
    bento = replace(write_bento(tmp_path / "bento"), python_version="3.13")
    base = write_base(tmp_path / "base", python="3.13.1")
    said: list[str] = []
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base), progress=said.append)
    with open_layer(tmp_path / "out", image.layers[1]) as layer:
        assert not [x for x in layer.getnames() if x.endswith(".pyc")]
    with open_layer(tmp_path / "out", image.layers[2]) as layer:
        assert "app/.venv/bin/python3.13" in layer.getnames()
    assert any("no bytecode" in sentence for sentence in said)


def test_memory_stays_flat_whatever_the_model_weighs(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    weights = bento.directory / "models/factor/0123456789abcdef/weights.bin"
    with weights.open("wb") as file:
        file.truncate(512 << 20)
    # Not getrusage: that counts the process which forked this one, too.
    script = BUILD + "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    done = subprocess.run(
        [sys.executable, "-c", script, bento.directory, f"oci:{tmp_path}/out", base],
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert int(done.stdout.split()[-1]) < 150 * 1024


def test_a_second_build_in_the_same_place_says_that_nothing_changed(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    first = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    second = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert (first.reused, second.reused) == (False, True)
    assert second.to_dict()["reused"] is True


def test_what_was_left_out_is_said_by_a_plan_and_by_a_build(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    file = bento.directory / "bento.yaml"
    later = "- {name: RATE, value: '2', stage: runtime}\n- {name: KEY, value: x, stage: build}\n"
    file.write_text(file.read_text().replace("envs:\n", f"envs:\n{later}"))
    options = ImageOptions(base=base)
    planned = plan_image(bento, f"oci:{tmp_path}/out", options).notes
    image = build_image(bento, f"oci:{tmp_path}/out", options)
    assert image.notes == planned == tuple(image.to_dict()["notes"])
    assert "runtime-stage variable RATE is not in the image" in planned[0]
    assert "build-stage variable KEY" in planned[1]


def test_an_image_that_was_not_approved_gets_neither_manifest_nor_tag(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    approval = Approval()
    approval.refuse()
    with pytest.raises(Stopped):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base), approval=approval)
    assert not (tmp_path / "out").exists()


def test_an_image_waits_for_its_approval(bento: Bento, base: str, tmp_path: Path) -> None:
    approval, options = Approval(), ImageOptions(base=base)
    said: list[str] = []

    def tell(sentence: str) -> None:
        said.append(sentence)
        approval.give()

    image = build_image(bento, f"oci:{tmp_path}/out", options, progress=tell, approval=approval)
    assert image.digest == build_image(bento, f"oci:{tmp_path}/plain", options).digest
