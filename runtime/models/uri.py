"""The ways to name a model, as MLflow writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.models.text import has_control_characters

FORMS = (
    "Use models:/NAME/VERSION, models:/NAME@ALIAS, models:/NAME/latest, models:/m-ID, "
    "runs:/RUN_ID/PATH, an artifact URI such as s3://BUCKET/PATH, or a directory."
)

_LOGGED_MODEL = re.compile(r"m-[0-9a-f]{32}")
_RUN_ID = re.compile(r"[A-Za-z0-9][\w-]{0,255}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_STAGES = frozenset({"none", "staging", "production", "archived"})
_LARGEST_VERSION = 2**31 - 1


@dataclass(frozen=True)
class ModelUri:
    """A parsed model URI.

    Attributes:
        text: The URI as written, without surrounding blanks.
        kind: "version", "alias", "latest", "logged_model", "run", "directory" or "artifact".
        name: Registered model name (version, alias, latest).
        version: Version number (version).
        alias: Alias (alias).
        model_id: `m-…` (logged_model).
        run_id: Run id (run).
        path: Path inside the run (run), or the directory (directory).
    """

    text: str
    kind: str
    name: str = ""
    version: str = ""
    alias: str = ""
    model_id: str = ""
    run_id: str = ""
    path: str = ""


def parse_model_uri(text: str) -> ModelUri:
    """Read a model URI without asking any server.

    Names are taken as they are, since MLflow decodes no percent escapes in `models:/` URIs:
    blanks and letters of any script are fine, `%20` means those three characters.

    Args:
        text: One of the forms named in the module's `FORMS`.

    Raises:
        InvalidInput: The text is none of these forms, or names a deprecated stage.
    """
    text = text.strip()
    if not text or has_control_characters(text):
        raise InvalidInput(f"{text!r} is not a model URI.", hint=FORMS)
    match = _SCHEME.match(text)
    scheme = match.group(1).lower() if match else ""
    if scheme == "models":
        return _registry_uri(text)
    if scheme == "runs":
        return _run_uri(text)
    if scheme == "file":
        return _file_uri(text)
    if scheme == "model" or scheme == "run":
        raise InvalidInput(f"{text!r}: the scheme is written {scheme}s:/.", hint=FORMS)
    if match and text[match.end() :].startswith("/"):
        return ModelUri(text, "artifact")
    return ModelUri(text, "directory", path=text)


def logged_model_id(source: str) -> str:
    """Give the `m-…` id out of a version's source, or "" where there is none.

    MLflow's SQL store leaves `model_id` empty on registered versions and says it only here.
    """
    match = re.search(rf"(?:^models:/|/models/)({_LOGGED_MODEL.pattern})(?:/|$)", source)
    return match.group(1) if match else ""


def without_password(uri: str) -> str:
    """Give a URI fit for messages and records: user name and password are cut out."""
    head, separator, rest = uri.partition("://")
    if not separator:
        return uri
    authority, slash, path = rest.partition("/")
    return f"{head}://{authority.rpartition('@')[2]}{slash}{path}"


def _registry_uri(text: str) -> ModelUri:
    rest = text.partition(":")[2]
    if rest.startswith("//") and not rest.startswith("///"):
        raise InvalidInput(
            f"{text!r} names a server inside a models: URI, which is not supported.",
            hint="Write one slash, models:/NAME/VERSION, and give the server as tracking URI.",
        )
    parts = rest.strip("/").split("/")
    if not rest.startswith("/") or not parts[0].strip():
        raise InvalidInput(f"{text!r} names no model.", hint=FORMS)
    if len(parts) > 2:
        raise InvalidInput(
            f"{text!r} points inside a model (or the model's name has a slash in it).",
            hint="Name the whole model: " + FORMS,
        )
    if len(parts) == 1:
        return _one_part(text, parts[0])
    return _name_and_suffix(text, *parts)


def _one_part(text: str, part: str) -> ModelUri:
    name, separator, alias = part.rpartition("@")
    if separator:
        if not name.strip() or not alias.strip():
            raise InvalidInput(f"{text!r} lacks a name or an alias around '@'.", hint=FORMS)
        # The registry itself answers the reserved alias `latest` with the newest version.
        if alias.lower() == "latest":
            return ModelUri(text, "latest", name=name)
        return ModelUri(text, "alias", name=name, alias=alias)
    if _LOGGED_MODEL.fullmatch(part):
        return ModelUri(text, "logged_model", model_id=part)
    raise InvalidInput(
        f"{text!r} says which model but not which version of it.",
        hint=f"Write models:/{part}/1, models:/{part}@ALIAS or models:/{part}/latest.",
    )


def _name_and_suffix(text: str, name: str, suffix: str) -> ModelUri:
    if suffix.isascii() and suffix.isdigit():
        number = int(suffix[:32])
        if not 0 < number <= _LARGEST_VERSION:
            raise InvalidInput(f"{text!r}: versions are numbers from 1.", hint=FORMS)
        return ModelUri(text, "version", name=name, version=str(number))
    if suffix.lower() == "latest":
        return ModelUri(text, "latest", name=name)
    if "@" in name:
        raise InvalidInput(f"{text!r} points inside a model.", hint="Name the whole model.")
    what = "the stage" if suffix.lower() in _STAGES else "what MLflow reads as a stage,"
    raise InvalidInput(
        f"{text!r} asks for {what} {suffix!r}; stages are deprecated and not supported.",
        hint=f"Set an alias on the version and write models:/{name}@{suffix.lower()}.",
    )


def _run_uri(text: str) -> ModelUri:
    run_id, _, path = text.partition(":")[2].lstrip("/").partition("/")
    path = path.strip("/")
    if not _RUN_ID.fullmatch(run_id):
        raise InvalidInput(f"{text!r} names no run.", hint="Write runs:/RUN_ID/PATH.")
    if not path:
        raise InvalidInput(
            f"{text!r} does not say where in the run the model is.",
            hint=f"Write runs:/{run_id}/model if it was logged under the name 'model'.",
        )
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidInput(f"{text!r} has a path that leaves the run.", hint=FORMS)
    return ModelUri(text, "run", run_id=run_id, path=path)


def _file_uri(text: str) -> ModelUri:
    parsed = urlsplit(text)
    if parsed.netloc not in ("", "localhost") or not parsed.path.startswith("/"):
        raise InvalidInput(
            f"{text!r} is not a file on this machine.", hint="Write file:///PATH/TO/MODEL."
        )
    return ModelUri(text, "directory", path=unquote(parsed.path))
