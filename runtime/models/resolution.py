"""What a model URI means right now: the registry is asked once, and never again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.models.text import checked_text, shown_text
from kfp_bento.runtime.models.tracking import is_missing, missing_as
from kfp_bento.runtime.models.uri import logged_model_id, without_password
from kfp_bento.runtime.models.version import version_number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kfp_bento.runtime.models.uri import ModelUri


_MOST_ENTRIES = 10_000
_LONGEST_TAG = 100_000


@dataclass(frozen=True)
class Resolution:
    """One exact model in a store, and where its files are.

    Attributes:
        location: The artifact URI of the model's directory; never an alias.
        name: Registered model name, or "".
        version: Registered version, or "".
        run_id: The run that logged it, or "".
        model_id: The LoggedModel, or "".
        source: The registry's own source field, or `location` where there is none.
        aliases: Alias to version of the registered model, from the same read as the alias.
    """

    location: str
    name: str = ""
    version: str = ""
    run_id: str = ""
    model_id: str = ""
    source: str = ""
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model as the registry answered, checked.

    Attributes:
        name: Its name.
        aliases: Alias to version.
        newest: Its newest version, as far as the answer says it, or "".
        tags: Its tags; their values are whatever somebody wrote.
    """

    name: str
    aliases: dict[str, str]
    newest: str
    tags: dict[str, str]


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model as the registry answered, checked.

    Attributes:
        run_id: The run that logged it, or "".
        model_id: The LoggedModel, or "".
        source: Where its files are, with a password if there is one.
        status: "READY", or why not.
        tags: Its tags; their values are whatever somebody wrote.
    """

    run_id: str
    model_id: str
    source: str
    status: str
    tags: dict[str, str]


def read_registered_model(answer: Any) -> RegisteredModel:
    """Read MLflow's `RegisteredModel`.

    Raises:
        ModelError: A name, alias or version is none.
    """
    aliases = dict(_limited(answer.aliases, "aliases"))
    versions = [
        version_number(found.version, "A version") for found in answer.latest_versions or ()
    ]
    return RegisteredModel(
        name=checked_text(answer.name, "The registered model's name"),
        aliases={
            checked_text(alias, "An alias"): version_number(version, "The version of an alias")
            for alias, version in aliases.items()
        },
        newest=_latest(versions),
        tags=_tags(answer),
    )


def read_registered_version(answer: Any) -> RegisteredVersion:
    """Read MLflow's `ModelVersion`.

    Raises:
        ModelError: A field is no text that can be shown, or there is no end of tags.
    """
    message = shown_text(answer.status_message or "")
    return RegisteredVersion(
        run_id=checked_text(answer.run_id or "", "The version's run"),
        model_id=checked_text(answer.model_id or "", "The version's model id"),
        source=checked_text(answer.source or "", "The version's source"),
        status=shown_text(answer.status) + (f" ({message})" if message else ""),
        tags=_tags(answer),
    )


def _tags(answer: Any) -> dict[str, str]:
    tags = {str(key): str(value) for key, value in _limited(answer.tags, "tags").items()}
    return {key: value for key, value in tags.items() if len(value) <= _LONGEST_TAG}


def _latest(versions: Iterable[str]) -> str:
    return max(versions, key=lambda version: int(version or 0), default="")


def _limited(entries: Any, what: str) -> dict[Any, Any]:
    found = dict(entries or {})
    if len(found) > _MOST_ENTRIES:
        raise ModelError(
            f"The registry answers with {len(found)} {what}.",
            hint=f"Remove some: at most {_MOST_ENTRIES} are read.",
        )
    return found


def resolve_model(uri: ModelUri, client: Any) -> Resolution:
    """Asks the registry what a URI means.

    An alias is looked up in exactly one read of the registered model; everything after that
    read uses the version number, so an alias that moves meanwhile is not followed.

    Args:
        uri: Any kind but "directory".
        client: An `MlflowClient`.

    Raises:
        ModelError: The model, alias, version, run or path does not exist.
    """
    if uri.kind == "artifact":
        return Resolution(uri.text, source=without_password(uri.text))
    if uri.kind == "logged_model":
        return _logged_model(uri.model_id, client)
    if uri.kind == "run":
        return _run_model(uri, client)
    return _registered_version(uri, client)


def _registered_version(uri: ModelUri, client: Any) -> Resolution:
    registered = _registered_model(uri.name, client)
    version = uri.version
    if uri.kind == "alias":
        version = _aliased(uri, registered.aliases)
    elif uri.kind == "latest":
        version = _newest(registered, client)
        if not version:
            raise ModelError(
                f"The registered model {uri.name!r} has no versions yet.",
                hint="Register one with mlflow.register_model or log_model(registered_model_name).",
            )
    found = _model_version(uri.name, version, registered, client)
    return Resolution(
        location=_location(uri.name, version, found.source, client),
        name=uri.name,
        version=version,
        run_id=found.run_id,
        model_id=found.model_id or logged_model_id(found.source),
        source=without_password(found.source),
        aliases=registered.aliases,
    )


def _registered_model(name: str, client: Any) -> RegisteredModel:
    percent = " MLflow does not decode percent escapes in names." if "%" in name else ""
    with missing_as(
        f"There is no registered model {name!r}.",
        hint="Check the name (upper and lower case matter) and the tracking URI." + percent,
    ):
        return read_registered_model(client.get_registered_model(name))


def _aliased(uri: ModelUri, aliases: dict[str, str]) -> str:
    if uri.alias in aliases:
        return aliases[uri.alias]
    existing = ", ".join(f"{alias} (version {aliases[alias]})" for alias in sorted(aliases))
    raise ModelError(
        f"The registered model {uri.name!r} has no alias {uri.alias!r}; "
        + (f"its aliases: {existing}." if existing else "it has no aliases at all."),
        hint=f"Use one that exists, a version number (models:/{uri.name}/1), or set the alias.",
    )


def _newest(registered: RegisteredModel, client: Any) -> str:
    # Some registries leave latest_versions out of the registered model.
    if registered.newest:
        return registered.newest
    quoted = registered.name.replace("'", "\\'")
    found = client.search_model_versions(f"name='{quoted}'")
    versions = [version_number(version.version, "A version") for version in found]
    return _latest(versions)


def _model_version(
    name: str, version: str, registered: RegisteredModel, client: Any
) -> RegisteredVersion:
    from mlflow.exceptions import MlflowException

    try:
        found = read_registered_version(client.get_model_version(name, version))
    except MlflowException as failure:
        if not is_missing(failure):
            raise
        newest = _newest(registered, client)
        raise ModelError(
            f"The registered model {name!r} has no version {version}; "
            + (f"the newest is {newest}." if newest else "it has no versions at all."),
            hint=f"Use models:/{name}/{newest}, or an alias."
            if newest
            else "Register a version first.",
        ) from failure
    if found.status.partition(" ")[0] != "READY":
        raise ModelError(
            f"Version {version} of {name!r} is not ready: {found.status}.",
            hint="Wait until its registration has finished, or register the model again.",
        )
    return found


def _location(name: str, version: str, source: str, client: Any) -> str:
    answer = client.get_model_version_download_uri(name, version) or source
    location = checked_text(answer, "The version's location")
    # A LoggedModel reference would be resolved by MLflow with process-wide settings, not ours.
    if location.startswith("models:/") and (model_id := logged_model_id(location)):
        return _logged_model(model_id, client).location
    return location


def _logged_model(model_id: str, client: Any) -> Resolution:
    with missing_as(
        f"There is no logged model {model_id}.",
        hint="Check the id and the tracking URI; a deleted model cannot be pulled.",
    ):
        found = client.get_logged_model(model_id)
    return Resolution(
        location=checked_text(found.artifact_location, "The logged model's location"),
        run_id=checked_text(found.source_run_id or "", "The logged model's run"),
        model_id=model_id,
        source=f"models:/{model_id}",
    )


def _run_model(uri: ModelUri, client: Any) -> Resolution:
    hint = "Check the run id and the tracking URI."
    with missing_as(f"There is no run {uri.run_id}.", hint=hint):
        run = client.get_run(uri.run_id)
    name, _, below = uri.path.partition("/")
    logged = _model_of_run(run, name, client)
    if logged is not None:
        resolution = _logged_model(logged, client)
        location = resolution.location + (f"/{below}" if below else "")
        return Resolution(location, run_id=uri.run_id, model_id=logged, source=resolution.source)
    root = checked_text(run.info.artifact_uri, "The run's location")
    location = root.rstrip("/") + f"/{uri.path}"
    return Resolution(location, run_id=uri.run_id, source=without_password(location))


def _model_of_run(run: Any, name: str, client: Any) -> str | None:
    """Find a model that MLflow, since version 3, logged beside its run."""
    from mlflow.exceptions import MlflowException

    quoted = name.replace("'", "\\'")
    token = None
    for _ in range(_MOST_ENTRIES):
        try:
            page = client.search_logged_models(
                experiment_ids=[run.info.experiment_id],
                filter_string=f"name = '{quoted}'",
                page_token=token,
            )
        except MlflowException as failure:
            if failure.error_code == "ENDPOINT_NOT_FOUND":  # a server older than MLflow 3
                return None
            raise
        for model in page:
            if model.source_run_id == run.info.run_id:
                return checked_text(model.model_id, "The logged model's id")
        token = page.token
        if not token:
            break
    return None
