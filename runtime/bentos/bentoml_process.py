"""Runs BentoML's build, as a program of its own.

BentoML keeps its store, its configuration and the imported service in module state, so that one
process can build one bento only. `isolation.py` starts this file with a job as its only argument
and reads the result from a file: the service may print what it likes.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from kfp_bento.runtime.files import parse_json

BUILD_FILES = ("bentofile.yaml", "pyproject.toml")


def main(job: dict[str, Any]) -> dict[str, str]:
    """Build one bento and give its path.

    Args:
        job: `context` (directory of the service's source), `service` (import string, "" for what
            the build file says), `name` ("" for BentoML's own), `version`, `python_version`,
            `wishes` (`system_packages`, `envs` and `labels` besides those of the service).
    """
    import attr
    from bentoml._internal.bento.bento import Bento
    from bentoml._internal.bento.build_config import BentoBuildConfig, BentoEnvSchema

    wishes = job["wishes"]
    freeze_for_wheels(job["python_version"])
    let_win(wishes)
    files = [Path(job["context"], name) for name in BUILD_FILES]
    file = next((file for file in files if file.is_file() and not job["service"]), None)
    config = BentoBuildConfig.from_file(str(file)) if file else BentoBuildConfig(service="")
    envs = [env for env in config.envs if env.name not in wishes["envs"]]
    packages = [*(config.docker.system_packages or ()), *wishes["system_packages"]]
    config = attr.evolve(
        config,
        service=job["service"] or config.service,
        name=job["name"] or config.name,
        python=attr.evolve(config.python, lock_packages=False),
        docker=attr.evolve(
            config.docker,
            python_version=job["python_version"],
            system_packages=list(dict.fromkeys(packages)) or None,
        ),
        envs=[*envs, *(BentoEnvSchema(name, value) for name, value in wishes["envs"].items())],
        labels={**config.labels, **wishes["labels"]},
    )
    bento = Bento.create(config, version=job["version"], build_ctx=job["context"]).save()
    return {"path": str(bento.path)}


def freeze_for_wheels(python_version: str) -> None:
    """Let BentoML write what an image of locked wheels needs, and not the compilers besides."""
    from _bentoml_sdk.images import Image  # type: ignore[import-untyped]
    from bentoml._internal.container.frontend.dockerfile import CONTAINER_METADATA

    system_packages = {data["default_install_command"] for data in CONTAINER_METADATA.values()}
    freeze = Image.freeze

    def freeze_locked(image: Any, *args: Any) -> Any:
        image.commands = [line for line in image.commands if line not in system_packages]
        image.lock_python_packages = False
        if image.base_image == f"python:{image.python_version}-slim":
            image.base_image = f"python:{python_version}-slim"
        image.python_version = python_version
        return freeze(image, *args)

    Image.freeze = freeze_locked


def let_win(wishes: dict[str, Any]) -> None:
    """Let variables and labels of the build win over the service's own; BentoML has it reversed."""
    from bentoml._internal.service import loader

    load = loader.load

    def load_below_wishes(*args: Any, **options: Any) -> Any:
        service = load(*args, **options)
        if hasattr(service, "envs"):
            service.envs[:] = [env for env in service.envs if env.name not in wishes["envs"]]
            for label in wishes["labels"]:
                service.labels.pop(label, None)
        return service

    loader.load = load_below_wishes


def failure(error: BaseException, context: str) -> dict[str, str]:
    """Give an error as one sentence, with the line of the service's own source it came from."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if not type(error).__module__.startswith(("bentoml", "_bentoml")):
        text = f"{type(error).__name__}: {text}"
    here = os.path.realpath(context) + os.sep
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if os.path.realpath(frame.filename).startswith(here):
            place = f"{os.path.realpath(frame.filename)[len(here) :]} line {frame.lineno}"
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{Path(error.filename).name} line {error.lineno}"
    return {"error": text, "place": place, "hint": " ".join(lines[1:])}


if __name__ == "__main__":
    given = parse_json(sys.argv[1].encode())
    try:
        outcome = main(given)
    except BaseException as error:  # a service may even call sys.exit while it is imported
        outcome = failure(error, given["context"])
    Path(given["result"]).write_text(json.dumps(outcome), encoding="utf-8")
