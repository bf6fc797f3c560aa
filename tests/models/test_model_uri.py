from __future__ import annotations

import pytest

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.models import without_password
from kfp_bento.runtime.models.uri import ModelUri, logged_model_id, parse_model_uri

ID = "m-" + "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("text", "kind", "facts"),
    [
        ("models:/wine/3", "version", {"name": "wine", "version": "3"}),
        ("models:/wine/007", "version", {"name": "wine", "version": "7"}),
        ("  models:/wine/3 ", "version", {"name": "wine", "version": "3"}),
        ("models:/wine/latest", "latest", {"name": "wine"}),
        ("models:/wine/LATEST", "latest", {"name": "wine"}),
        ("models:/wine@latest", "latest", {"name": "wine"}),
        ("models:/wine@champion", "alias", {"name": "wine", "alias": "champion"}),
        ("models:/a@b@champion", "alias", {"name": "a@b", "alias": "champion"}),
        ("models:/a@b/2", "version", {"name": "a@b", "version": "2"}),
        ("models:/rött vin/3", "version", {"name": "rött vin", "version": "3"}),
        ("models:/red%20wine@x", "alias", {"name": "red%20wine", "alias": "x"}),
        ("models:/catalog.schema.wine/3", "version", {"name": "catalog.schema.wine"}),
        (f"models:/{ID}", "logged_model", {"model_id": ID}),
        (f"models:/{ID}/3", "version", {"name": ID, "version": "3"}),
        ("runs:/abc123/model", "run", {"run_id": "abc123", "path": "model"}),
        ("runs:/abc123/a/b c/", "run", {"run_id": "abc123", "path": "a/b c"}),
        ("mlflow-artifacts:/0/models/x", "artifact", {}),
        ("s3://bucket/a/model", "artifact", {}),
        ("https://host/model", "artifact", {}),
        ("file:///srv/my%20model", "directory", {"path": "/srv/my model"}),
        ("/srv/model", "directory", {"path": "/srv/model"}),
        ("models", "directory", {"path": "models"}),
        ("./a:b", "directory", {"path": "./a:b"}),
    ],
)
def test_every_form_is_understood(text: str, kind: str, facts: dict[str, str]) -> None:
    uri = parse_model_uri(text)

    assert (uri.kind, uri.text) == (kind, text.strip())
    assert {name: getattr(uri, name) for name in facts} == facts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a model URI"),
        ("models:/", "names no model"),
        ("models:", "names no model"),
        ("models:wine/3", "names no model"),
        ("models://wine/3", "one slash"),
        ("models:/wine", "which version"),
        ("models:/m-123", "which version"),
        ("models:/wine/", "which version"),
        ("models:/wine@", "lacks a name or an alias"),
        ("models:/@champion", "lacks a name or an alias"),
        ("models:/wine/0", "numbers from 1"),
        ("models:/wine/99999999999999999999", "numbers from 1"),
        ("models:/wine/3/MLmodel", "points inside"),
        ("models:/wine@champion/data", "points inside"),
        ("models:/wine/3\nx", "not a model URI"),
        ("model:/wine/3", "models:/"),
        ("runs:/abc123", "runs:/abc123/model"),
        ("runs:/", "names no run"),
        ("runs:/abc123/../../etc", "leaves the run"),
        ("file://elsewhere/model", "not a file on this machine"),
    ],
)
def test_what_is_no_model_uri_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        parse_model_uri(text)

    assert caught.value.hint


@pytest.mark.parametrize("stage", ["Production", "staging", "None", "Archived"])
def test_a_stage_is_refused_with_a_hint_to_use_an_alias(stage: str) -> None:
    with pytest.raises(InvalidInput, match="deprecated") as caught:
        parse_model_uri(f"models:/wine/{stage}")

    assert f"models:/wine@{stage.lower()}" in caught.value.hint


def test_parsing_agrees_with_mlflow_on_registry_uris() -> None:
    from mlflow.store.artifact.utils.models import _parse_model_uri

    for text in ("models:/a b/3", "models:/ü@x", "models:/a@b@x", "models:/a%20/latest"):
        ours, theirs = parse_model_uri(text), _parse_model_uri(text)
        assert (ours.name, ours.version or None, ours.alias or None) == (
            theirs.name,
            theirs.version,
            theirs.alias,
        )


def test_a_parsed_uri_is_a_plain_value() -> None:
    assert parse_model_uri("models:/wine/3") == ModelUri(
        "models:/wine/3", "version", name="wine", version="3"
    )


def test_the_logged_model_is_read_out_of_a_versions_source() -> None:
    assert logged_model_id(f"models:/{ID}") == ID
    assert logged_model_id(f"mlflow-artifacts:/0/models/{ID}/artifacts") == ID
    assert logged_model_id("s3://bucket/0/run/artifacts/model") == ""


def test_a_password_in_a_uri_is_not_shown() -> None:
    assert without_password("https://me:secret@host:5000/a@b") == "https://host:5000/a@b"
    assert without_password("models:/a@b") == "models:/a@b"
