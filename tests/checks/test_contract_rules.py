"""What breaks the clients of an earlier API, and what does not: document against document."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfp_bento.runtime.checks import CheckReport, check_contract
from kfp_bento.runtime.checks.contract_reduction import NoContract, reduced
from kfp_bento.runtime.errors import CheckError

JSON = "application/json"
TEXT, NUMBER, INTEGER, NULL = ({"type": one} for one in ("string", "number", "integer", "null"))


def record(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def api(
    request: Any = None, answer: Any = None, *, path: str = "/predict", **more: Any
) -> dict[str, Any]:
    """One route that takes and gives JSON of two schemas."""
    operation: dict[str, Any] = {
        "responses": {"200": {"content": {JSON: {"schema": {} if answer is None else answer}}}}
    }
    if request is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": request}}}
    return {"openapi": "3.0.2", "paths": {path: {"post": operation}}, **more}


def compared(was: Any, now: Any) -> CheckReport:
    return check_contract("http://127.0.0.1:1", was, served=now)


def reasons(report: CheckReport) -> dict[str, str]:
    """Where and why, without the name of the route."""
    return {
        one["request"].removeprefix("POST /predict ").replace(f" {JSON}", ""): one["reason"]
        for one in report.evidence
        if "reason" in one
    }


BREAKING = {
    "a removed request field": (record(a=TEXT, b=TEXT), record(a=TEXT), ".b", "is gone"),
    "a retyped request field": (record(a=TEXT), record(a=NUMBER), ".a", "was a string, is number"),
    "a narrower number": (record(a=NUMBER), record(a=INTEGER), ".a", "was a number, is integer"),
    "a new required field": (record(), record("a", a=TEXT), ".a", "is new, and required"),
    "a field required now": (record(a=TEXT), record("a", a=TEXT), ".a", "is required now"),
    "null refused now": (
        record(a={"anyOf": [TEXT, NULL]}),
        record(a=TEXT),
        ".a",
        "may not be null any more",
    ),
    "nullable of OpenAPI 3.0": (
        record(a={"type": "string", "nullable": True}),
        record(a=TEXT),
        ".a",
        "may not be null any more",
    ),
    "a list of types": (record(a={"type": ["string", "integer"]}), record(a=TEXT), ".a", "integer"),
    "a choice less": (record(a={"oneOf": [TEXT, record()]}), record(a=TEXT), ".a", "object"),
    "a value less": (
        record(a={"enum": ["x", "y"]}),
        record(a={"enum": ["x"]}),
        ".a",
        'does not take "y" any more',
    ),
    "certain values only": (record(a=TEXT), record(a={"const": "x"}), ".a", "certain values only"),
    "other fields refused": (
        record(),
        {**record(), "additionalProperties": False},
        ".*",
        "no other fields",
    ),
    "other values of a map": (
        {"type": "object", "additionalProperties": NUMBER},
        {"type": "object", "additionalProperties": TEXT},
        ".*",
        "was a number, is string",
    ),
    "other items": (
        {"type": "array", "items": TEXT},
        {"type": "array", "items": INTEGER},
        "[]",
        "was a string",
    ),
    "a tighter bound": (
        record(a={"type": "array", "items": {}}),
        record(a={"type": "array", "items": {}, "maxItems": 3}),
        ".a",
        "maxItems was none, is 3",
    ),
    "another format": (
        record(a={"type": "string", "format": "date"}),
        record(a={"type": "string", "format": "uuid"}),
        ".a",
        "format was",
    ),
    "a part of allOf": (
        {"allOf": [record(a=TEXT), record(b=TEXT)]},
        {"allOf": [record(a=TEXT), record("b", b=INTEGER)]},
        ".b",
        "is required now",
    ),
    "anything became something": ({}, TEXT, "", "was anything"),
}
ANSWERS = {
    "a removed field": (record(a=TEXT, b=TEXT), record(a=TEXT), ".b", "is gone"),
    "a retyped field": (record(a=TEXT), record(a=NUMBER), ".a", "is a number now, not string"),
    "a wider number": (record(a=INTEGER), record(a=NUMBER), ".a", "is a number now"),
    "null where none was": (
        record(a=TEXT),
        record(a={"anyOf": [TEXT, NULL]}),
        ".a",
        "may be null now",
    ),
    "a field left out": (record("a", a=TEXT), record(a=TEXT), ".a", "may be left out now"),
    "items": ({"type": "array", "items": INTEGER}, {"type": "array"}, "[]", "anything"),
}
HARMLESS = {
    "an optional field": (record(a=TEXT), record(a=TEXT, b=TEXT)),
    "a wider number": (record(a=INTEGER), record(a=NUMBER)),
    "null allowed": (record(a=TEXT), record(a={"anyOf": [TEXT, NULL]})),
    "a value more": (record(a={"enum": ["x"]}), record(a={"enum": ["x", "y"]})),
    "no longer required": (record("a", a=TEXT), record(a=TEXT)),
    "values in two choices": (
        record(a={"enum": ["x", "y"]}),
        record(a={"anyOf": [{"const": "y"}, {"const": "x"}]}),
    ),
    "the same, written otherwise": (
        record(a={"type": ["string", "null"]}),
        record(a={"oneOf": [NULL, {"allOf": [TEXT]}]}),
    ),
    "a looser bound": (record(a={**NUMBER, "minimum": 1}), record(a={**NUMBER, "minimum": 0})),
    "titles and examples": (
        record(a={**TEXT, "title": "A", "example": "x", "default": "y"}),
        record(a=TEXT),
    ),
}


@pytest.mark.parametrize(("was", "now", "where", "why"), BREAKING.values(), ids=BREAKING)
def test_a_request_that_takes_less_breaks_clients(was: Any, now: Any, where: str, why: str) -> None:
    report = compared(api(was), api(now))
    found = reasons(report)
    assert not report.passed
    assert why in found[f"request{where}"], found


@pytest.mark.parametrize(("was", "now", "where", "why"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_gives_something_else_breaks_clients(
    was: Any, now: Any, where: str, why: str
) -> None:
    found = reasons(compared(api(answer=was), api(answer=now)))
    assert why in found[f"answer 200{where}"], found


@pytest.mark.parametrize(("was", "now"), HARMLESS.values(), ids=HARMLESS)
def test_what_breaks_nobody_passes(was: Any, now: Any) -> None:
    report = compared(api(was), api(now))
    assert report.passed, report.summary


def test_what_was_added_is_told() -> None:
    now = api(record(a=TEXT, b=TEXT), record(score=NUMBER))
    now["paths"]["/other"] = now["paths"]["/predict"]
    report = compared(api(record(a=TEXT), record()), now)
    assert report.passed
    assert report.measures == {"routes": 2, "breaking": 0, "additions": 3}
    (told,) = report.evidence
    assert told["added"] == [
        "POST /other: is new",
        f"POST /predict request {JSON}.b: is new",
        f"POST /predict answer 200 {JSON}.score: is new",
    ]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda paths: paths.pop("/predict"), "POST /predict"),
        (lambda paths: paths["/predict"].update(get=paths["/predict"].pop("post")), "POST"),
        (
            lambda paths: paths["/predict"]["post"]["requestBody"]["content"].update(
                {"text/csv": paths["/predict"]["post"]["requestBody"]["content"].pop(JSON)}
            ),
            "request application/json",
        ),
        (lambda paths: paths["/predict"]["post"]["responses"].pop("200"), "answer 200"),
        (
            lambda paths: paths["/predict"]["post"].update(
                parameters=[{"name": "key", "in": "query", "required": True, "schema": TEXT}]
            ),
            "query parameter key",
        ),
    ],
    ids=["route", "method", "media type", "answer", "parameter"],
)
def test_routes_media_types_and_parameters_are_part_of_it(change: Any, where: str) -> None:
    now = api(record())
    change(now["paths"])
    report = compared(api(record()), now)
    assert not report.passed
    assert any(where in one["request"] for one in report.evidence if "reason" in one)


def test_a_body_and_a_parameter_that_were_optional_may_not_become_required() -> None:
    def document(required: bool) -> dict[str, Any]:
        found = api(record())
        operation = found["paths"]["/predict"]["post"]
        operation["requestBody"]["required"] = required
        operation["parameters"] = [{"name": "n", "in": "query", "required": required, "schema": {}}]
        return found

    found = reasons(compared(document(False), document(True)))
    assert found == {"request": "is required now", "query parameter n": "is required now"}
    assert compared(document(True), document(False)).passed


def test_names_of_path_parameters_and_versions_of_models_are_no_promise() -> None:
    def document(name: str, version: str) -> dict[str, Any]:
        found = api(record(), path=f"/items/{{{name}}}")
        parameter = {"name": name, "in": "path", "required": True, "schema": TEXT}
        found["paths"][f"/items/{{{name}}}"]["post"]["parameters"] = [parameter]
        found["paths"][f"/v2/models/wine/versions/{version}/infer"] = api()["paths"]["/predict"]
        return found

    report = compared(document("id", "0a1b"), document("item", "2c3d"))
    assert report.passed, report.summary
    assert report.measures["additions"] == 0


def test_the_first_contract_passes_and_says_so() -> None:
    report = compared(None, api(record()))
    assert report.passed
    assert "no earlier contract" in report.summary
    assert report.measures["routes"] == 1


def test_references_are_followed_also_where_they_lead_back() -> None:
    def tree(value: Any) -> dict[str, Any]:
        node = {"$ref": "#/components/schemas/Node"}
        schemas = {"Node": record("value", value=value, children={"type": "array", "items": node})}
        return api(node, components={"schemas": schemas})

    assert compared(tree(TEXT), tree(TEXT)).passed
    found = reasons(compared(tree(TEXT), tree(INTEGER)))
    assert found["request.value"] == "was a string, is integer"


def test_a_reduced_document_is_small_and_compares_like_the_whole() -> None:
    whole = api(
        {"$ref": "#/components/schemas/Row"},
        components={
            "schemas": {"Row": {**record("a", a={**TEXT, "description": "x" * 1000}), "title": "R"}}
        },
        info={"title": "A service", "description": "y" * 1000},
    )
    small = reduced(whole)
    assert len(json.dumps(small)) < 600
    assert reduced(small) == small
    for one in (whole, small):
        for other in (whole, small):
            assert compared(one, other).passed
        assert not compared(one, api(record("a", a=NUMBER))).passed


def many_choices(depth: int) -> dict[str, Any]:
    """Schemas that would be written out to 2 to the power of depth."""
    schemas: dict[str, Any] = {
        f"S{n}": record(x={"$ref": f"#/components/schemas/S{n + 1}"}, y=reference(n + 1))
        for n in range(depth)
    }
    return api(reference(0), components={"schemas": {**schemas, f"S{depth}": TEXT}})


def reference(number: int) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/S{number}"}


def crossed(width: int) -> dict[str, Any]:
    """Choices of which all pairs would have to be looked at, again and again."""
    schemas: dict[str, Any] = {
        f"S{n}": {"anyOf": [record(**{f"f{k}": reference((n + k) % width)}) for k in range(width)]}
        for n in range(width)
    }
    return api({"allOf": [reference(n) for n in range(width)]}, components={"schemas": schemas})


@pytest.mark.timeout(20)
def test_a_bomb_of_references_is_compared_in_no_time() -> None:
    assert compared(many_choices(40), many_choices(40)).passed


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "document",
    [
        pytest.param(crossed(12), id="crossed choices"),
        pytest.param(
            api({"anyOf": [{"const": n, "minimum": n} for n in range(500)]}), id="choices"
        ),
        pytest.param({"paths": []}, id="no paths"),
        pytest.param({}, id="nothing"),
        pytest.param(
            api(components={"responses": {}})
            | {
                "paths": {"/x": {"$ref": "#/components/pathItems/a"}},
                "components": {"pathItems": {"a": {"$ref": "#/components/pathItems/a"}}},
            },
            id="a circle of routes",
        ),
    ],
)
def test_what_is_no_real_api_is_refused_in_a_sentence(document: Any) -> None:
    with pytest.raises(CheckError) as refused:
        compared(document, document)
    assert refused.value.hint


@pytest.mark.parametrize(
    "schema",
    [
        *({"$ref": "#/components/schemas/A"}, {"anyOf": [{"$ref": "#/components/schemas/A"}]}),
        *({"$ref": "https://example.com/a"}, {"type": 5, "enum": 3, "properties": [], "allOf": 1}),
        *({"type": "object", "required": "a"}, {"items": [1], "additionalProperties": "x"}),
    ],
)
def test_strange_schemas_are_compared_with_themselves(schema: Any) -> None:
    document = api(schema, schema, components={"schemas": {"A": schema}})
    assert compared(document, copy.deepcopy(document)).passed


names = st.sampled_from(["a", "b", "c"])
plain = st.one_of(
    st.sampled_from([{}, TEXT, NUMBER, INTEGER, NULL, {"type": "boolean"}, True, False]),
    st.builds(lambda values: {"enum": values}, st.lists(st.integers(0, 4) | names, min_size=1)),
    st.builds(lambda name: {"$ref": f"#/components/schemas/{name}"}, names),
    st.builds(lambda low: {"type": "integer", "minimum": low}, st.integers(0, 3)),
)
schemas = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(
            lambda fields, needed, rest: {
                **{"type": "object", "properties": fields, "required": needed},
                "additionalProperties": rest,
            },
            st.dictionaries(names, inner, max_size=3),
            st.lists(names, max_size=2),
            inner,
        ),
        st.builds(
            lambda kind, of: {kind: of},
            st.sampled_from(["anyOf", "oneOf", "allOf"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
    ),
    max_leaves=8,
)
documents = st.builds(
    lambda request, answer, named: api(request, answer, components={"schemas": named}),
    schemas,
    schemas,
    st.dictionaries(names, schemas),
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents)
def test_a_contract_passes_with_itself_and_reduces_to_itself(document: Any) -> None:
    try:
        report = compared(document, copy.deepcopy(document))
    except CheckError as refused:
        assert isinstance(refused.__cause__, NoContract)
        return
    assert report.passed, report.evidence
    assert report.measures["additions"] == 0
    assert reduced(reduced(document)) == reduced(document)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents, documents)
def test_any_two_contracts_give_a_report_that_can_be_kept(was: Any, now: Any) -> None:
    try:
        report = compared(was, now)
    except CheckError:
        return
    assert CheckReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    assert report.passed is not any("reason" in one for one in report.evidence)
