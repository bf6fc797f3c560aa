"""Bentos as plain BentoML writes them, with whatever their authors asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

NEW = """
service: service:P
name: p
version: abc
bentoml_version: 1.4.39
creation_time: '2024-05-06T07:08:09.123456+00:00'
labels: {}
models: []
entry_service: P
services: [{name: P, service: '', models: [], dependencies: [], config: {}}]
envs: []
schema: {}
spec: 2
image:
  base_image: python:3.11-slim
  python_version: '3.11'
  commands: []
  python_requirements: ''
  post_commands: []
"""
OLD = """
service: service:svc
name: old
version: abc
bentoml_version: 1.1.11
creation_time: '2023-05-06T07:08:09.123456+00:00'
labels: {owner: me}
models: []
runners: [{name: r, runnable_type: R, embedded: false, models: [], resource_config: null}]
apis: [{name: classify, input_type: NumpyNdarray, output_type: JSON}]
docker: {distro: debian, python_version: '3.11', cuda_version: null, env: null,
  system_packages: null, setup_script: null, base_image: null, dockerfile_template: null}
python: {packages: [], lock_packages: true, index_url: null, wheels: null, pip_args: null}
conda: {environment_yml: null, channels: null, dependencies: null, pip: null}
"""


def new_bento(folder: Path, requirements: str = "", **image: Any) -> Path:
    """A bento of BentoML 1.4."""
    return _written(folder, NEW, {"image": image}, {"requirements.txt": requirements})


def old_bento(folder: Path, lists: dict[str, str] | None = None, **sections: Any) -> Path:
    """A bento of BentoML 1.1; sections are docker, python and conda."""
    return _written(folder, OLD, sections, lists or {})


def _written(folder: Path, text: str, changes: dict[str, Any], lists: dict[str, str]) -> Path:
    data = yaml.safe_load(text)
    for section, values in changes.items():
        data[section].update(values)
    for place, content in {
        "bento.yaml": yaml.safe_dump(data, sort_keys=False),
        "src/service.py": "# nothing is run here\n",
        **{f"env/python/{name}": content for name, content in lists.items()},
    }.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder
