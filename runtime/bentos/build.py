"""Building a bento: models, service source and lock become one directory."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos.bento import Bento, BentoModel, load_bento, write_record
from kfp_bento.runtime.bentos.isolation import run_bentoml
from kfp_bento.runtime.bentos.kept_builds import built_once
from kfp_bento.runtime.bentos.lock import (
    BUILT_WHEELS,
    bento_constraints,
    bento_indexes,
    bento_requirements,
    index_options,
    lock_requirements,
    requirement_texts,
    users_requirements,
)
from kfp_bento.runtime.bentos.model_code import check_model_code
from kfp_bento.runtime.bentos.options import BentoOptions
from kfp_bento.runtime.bentos.service_location import fetched_service, has_build_file
from kfp_bento.runtime.bentos.service_source import (
    SERVICE_MODULE,
    generated_files,
    service_class_name,
    service_routes,
)
from kfp_bento.runtime.bentos.tree import (
    add_model,
    check_destination,
    finish_files,
    recorded_requirements,
    remove_traces,
)
from kfp_bento.runtime.errors import BentoError, InvalidInput, ModelError
from kfp_bento.runtime.files import code_digest, put_in_place, scratch_beside
from kfp_bento.runtime.models import is_tag_name, tag_name, tree_digest
from kfp_bento.runtime.requirements import AllowedSources, allowed_sources

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kfp_bento.runtime.models import ModelVersion

_HERE = Path(__file__).parent
GENERATOR_FORMAT = 3
"""Raised when the same inputs would give a different bento."""

_NO_OPTIONS = BentoOptions()
_CHANGED = "The bento that was there had been changed after it was built; it was replaced."


@dataclass(frozen=True)
class _BuildRequest:
    """What `build_bento` was asked for, checked; `tagged` are the models' tags in the bento."""

    models: Sequence[ModelVersion]
    tagged: tuple[BentoModel, ...]
    python: str
    name: str
    service: str
    requirements: Sequence[str]
    sources: AllowedSources
    options: BentoOptions


def build_bento(
    models: Sequence[ModelVersion],
    directory: Path,
    *,
    name: str = "",
    service: str | Path = "",
    python_version: str = "",
    requirements: Sequence[str] = (),
    allow_sources: Sequence[str] = (),
    options: BentoOptions | Mapping[str, Any] = _NO_OPTIONS,
) -> Bento:
    """Build a bento, or find that the directory holds it already.

    Same models, same service source, same wishes, same lock: same version and the same bytes,
    wherever and whenever it is built, and wherever the source came from.

    Args:
        models: The models; none for a service of one's own that needs none. Their files are
            hard-linked where that is possible.
        directory: Where the bento goes: a new or empty directory, or one that holds a bento.
        name: The bento's name; by default the first model's, or what the user's service says.
        service: A user's own service, wherever it is: see `fetched_service`; it finds its models as
            `bentoml.models.BentoModel("<model name>:latest")`. "": one is generated.
        python_version: Minor version such as "3.11"; by default the models' own.
        requirements: More requirements than the models': names, versions, wheels at addresses.
        allow_sources: Beginnings of addresses, such as `https://download.example.com/whl/`, of
            the indexes and wheels that the models' own requirements may name; without any, names
            and versions from the index configured for uv. With `git+https://host/team/` from
            repositories there too, at full commits, whose code builds wheels without network.
        options: The rarer wishes, also as a mapping of their names; see `BentoOptions`.

    Raises:
        InvalidInput: A name, version, address, option or allowed source cannot be used.
        BentoError: The service cannot be had or built, the dependencies not be locked, or models
            share code.
        StorageError: The service cannot be fetched, or is not the one that was meant.
    """
    directory = Path(directory).absolute()
    wanted = _BuildRequest(
        models=models,
        tagged=bento_models(models),
        python=_python_version(models, python_version),
        name=name,
        service=str(service),
        requirements=requirements,
        sources=allowed_sources(allow_sources),
        options=options if isinstance(options, BentoOptions) else BentoOptions.of(options),
    )
    _check(wanted)
    check_destination(directory)
    try:
        with scratch_beside(directory) as work:
            return _settled(_build(wanted, work), directory)
    except OSError as error:
        raise BentoError(
            f"{error.filename or directory} cannot be read or written: {error.strerror or error}.",
            hint="Check the free space and the permissions there.",
        ) from error


def _build(asked: _BuildRequest, work: Path) -> Bento:
    """Build below the scratch directory and give the bento as it lies there."""
    # All that can be refused by its text is refused before anything is run.
    own = users_requirements(asked.requirements, "the build", asked.sources, indexes=False)
    constraints = bento_constraints(asked.models, asked.sources)
    indexes = bento_indexes(asked.models, asked.sources)
    more = [*requirement_texts(own), *asked.options.requirements()]
    needed = bento_requirements(asked.models, more, asked.sources)
    store = work / "home" / "models"
    for model, tag in zip(asked.models, asked.tagged, strict=True):
        add_model(model, tag.tag, store)
    wishes = asked.options.wishes()
    if not asked.service:
        name = asked.name or asked.tagged[0].tag.partition(":")[0]
        context, target = _generated_context(work, name, asked)
        with ThreadPoolExecutor(max_workers=1) as pool:
            resolving = pool.submit(
                lock_requirements, needed, constraints, asked.python, work, indexes
            )
            path = built_once(
                work / "home",
                {
                    "source": tree_digest(context, leave_out=frozenset()),
                    "models": [(one.tag, one.digest) for one in asked.tagged],
                    "asked": [target, name, asked.python, wishes],
                    "by": [installed_version("bentoml"), sys.version, code_digest(_HERE)],
                },
                partial(run_bentoml, work, context, target, name, asked.python, wishes),
            )
            locked = resolving.result()
    else:
        context, target = _user_context(work, asked.service)
        path = run_bentoml(work, context, target, asked.name, asked.python, wishes)
        brought = users_requirements(
            recorded_requirements(path), "the service", asked.sources, indexes=True
        )
        both = [*requirement_texts(brought), *more]
        needed = bento_requirements(asked.models, both, asked.sources)
        indexes = list(dict.fromkeys([*index_options(brought), *indexes]))
        locked = lock_requirements(needed, constraints, asked.python, work, indexes)
    remove_traces(path)
    if (work / BUILT_WHEELS).is_dir():
        # Where BentoML, and whoever installs a bento of it, starts the installer.
        shutil.copytree(work / BUILT_WHEELS, path / "src" / BUILT_WHEELS, dirs_exist_ok=True)
    version = content_version(path / "src", asked.tagged, locked, asked.python)
    store.rename(path / "models")
    finish_files(path, version, locked)
    # What was pulled says what is in the models' files; who reads them next compares.
    bento = load_bento(path, known={model.tag: model.digest for model in asked.tagged})
    origins = {model.tag: replace(model, claimed=True) for model in asked.tagged}
    return replace(bento, models=tuple(origins.get(m.tag, m) for m in bento.models))


def _settled(built: Bento, directory: Path) -> Bento:
    """Put a bento into its place, unless every file of it is there already."""
    here = replace(built, directory=directory)
    if (directory / "bento.yaml").is_file():
        try:
            present = load_bento(directory)
        except (BentoError, ModelError):
            present = None
        if present and (present.tag, present.digest) == (built.tag, built.digest):
            write_record(here)
            return replace(here, reused=True)
        if present is None or present.tag == built.tag:
            here = replace(here, note=_CHANGED)
    write_record(built)
    put_in_place(built.directory, directory)
    return here


def bento_models(models: Sequence[ModelVersion]) -> tuple[BentoModel, ...]:
    """Give each model its tag in the bento: its name, and the start of its content digest.

    Raises:
        InvalidInput: One was given twice.
    """
    made = tuple(
        BentoModel(
            tag=f"{model.name_in_bento}:{model.content_digest.removeprefix('sha256:')[:16]}",
            digest=model.content_digest,
            provenance=model.to_dict(),
        )
        for model in models
    )
    tags = [model.tag for model in made]
    twice = next((tag for tag in tags if tags.count(tag) > 1), None)
    if twice:
        raise InvalidInput(
            f"The model {twice} was given twice.",
            hint="Give each model once; versions with equal content count as one.",
        )
    return made


def model_paths(models: Sequence[ModelVersion]) -> dict[str, str]:
    """Give the path at which a generated service asks each model, by the model's tag."""
    return {route.tag: route.path for route in service_routes(models, bento_models(models))}


def _python_version(models: Sequence[ModelVersion], wanted: str) -> str:
    minors = sorted({".".join(m.python_version.split(".")[:2]) for m in models if m.python_version})
    if not wanted and len(minors) > 1:
        raise InvalidInput(
            f"The models were logged with different Python versions: {', '.join(minors)}.",
            hint=f"Choose one: --python-version {minors[-1]} (python_version={minors[-1]!r}).",
        )
    chosen = wanted or (minors[0] if minors else f"{sys.version_info[0]}.{sys.version_info[1]}")
    match = re.fullmatch(r"3\.([0-9]{1,2})(?:\.[0-9a-z+]{1,12})?", chosen)
    if match is None or int(match[1]) < 10:
        raise InvalidInput(
            f"A bento for Python {chosen!r} cannot be built; it takes 3.10 or newer.",
            hint="Choose another: --python-version 3.11 (in pipelines and in Python "
            "python_version='3.11'). The model's packages must be there for it, and what it "
            "pickled must be read by it.",
        )
    return f"3.{match[1]}"


def _check(asked: _BuildRequest) -> None:
    if asked.name and not is_tag_name(asked.name):
        raise InvalidInput(
            f"{asked.name!r} cannot be the name of a bento.",
            hint="Use up to 63 of a-z, 0-9, '-', '_' and '.', for example "
            f"{tag_name(asked.name)!r}.",
        )
    if asked.service:
        asked.options.require_own_service()
    elif not asked.models:
        raise InvalidInput(
            "A bento needs at least one model, or a service of your own.",
            hint="Pull a model first, or name a service (--service).",
        )
    check_model_code(asked.models)


def _generated_context(work: Path, name: str, asked: _BuildRequest) -> tuple[Path, str]:
    context = work / "context"
    context.mkdir()
    files = generated_files(
        name,
        asked.models,
        asked.tagged,
        show_example=asked.options.show_example,
        speaks=asked.options.speech,
    )
    for file, content in files.items():
        (context / file).write_bytes(content)
    return context, f"{SERVICE_MODULE}:{service_class_name(name)}"


def _user_context(work: Path, location: str) -> tuple[Path, str]:
    """Give the directory of a user's service and its import string ("": its build file says)."""
    service = fetched_service(location, work)
    if service.is_file():
        context = work / "context"
        context.mkdir()
        shutil.copyfile(service, context / service.name)
        return context, service.stem
    return service.resolve(), "" if has_build_file(service) else "service"


def content_version(source: Path, models: Sequence[BentoModel], lock_text: str, python: str) -> str:
    """Derive a bento's version from everything that decides what the bento does.

    Args:
        source: The directory of the service's source.
        models: The models with their tags.
        lock_text: The text of the lock.
        python: The minor version of the interpreter.

    Returns:
        16 hexadecimal characters.
    """
    facts: dict[str, Any] = {
        "format": GENERATOR_FORMAT,
        "bentoml": installed_version("bentoml"),
        "python": python,
        "models": [(model.tag, model.digest) for model in models],
        "source": tree_digest(source, leave_out=frozenset()),
        "lock": hashlib.sha256(lock_text.encode()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
