"""What a generated service lets in, how much of it, and what it tells: over ASGI."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import numpy as np
import packed_models as samples
import pytest
from conversations import JSON, Ask, Write
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array, Map, Object, Property

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "Ada-Lovelace-1815"
TOKEN = "0123456789abcdef"

SCHEMA = Schema(
    [
        ColSpec("double", "weight"),
        ColSpec("string", "name", required=False),
        ColSpec(Array(DataType.long), "numbers", required=False),
        ColSpec(Map(DataType.double), "map", required=False),
        ColSpec(Object([Property("low", DataType.long)]), "limits", required=False),
        ColSpec("datetime", "at", required=False),
        ColSpec("binary", "bin", required=False),
    ]
)
GOOD = {"inputs": [{"weight": 1.5}]}


@pytest.fixture(scope="module")
def columns(tmp_path_factory: Any, generate: Any) -> Path:
    return generate(samples.save_echo(tmp_path_factory.mktemp("m") / "columns", SCHEMA))


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: Any, generate: Any) -> Path:
    schema = Schema(
        [
            TensorSpec(np.dtype("float32"), (-1, 2), "pair"),
            TensorSpec(np.dtype("str"), (-1,), "text"),
            TensorSpec(np.dtype("datetime64[ns]"), (-1,), "at"),
        ]
    )
    return generate(samples.save_echo(tmp_path_factory.mktemp("m") / "tensors", schema))


@pytest.fixture(scope="module")
def free(tmp_path_factory: Any, generate: Any) -> Path:
    return generate(samples.save_echo(tmp_path_factory.mktemp("m") / "free"))


@pytest.fixture(scope="module")
def failing(tmp_path_factory: Any, generate: Any) -> Path:
    folder = tmp_path_factory.mktemp("failing")
    (folder / "failing.py").write_text(
        "import mlflow, pydantic\n"
        "class Model(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        text = model_input['text'][0]\n"
        "        if text.startswith('checked'):\n"
        "            pydantic.TypeAdapter(int).validate_python(text)\n"
        "        try:\n"
        "            raise KeyError(text)\n"
        "        except KeyError as error:\n"
        "            raise ValueError(f'bad {text}') from error\n"
        "mlflow.models.set_model(Model())\n"
    )
    source = str(folder / "failing.py")
    mlflow.pyfunc.save_model(folder / "model", python_model=source, **samples.QUICK)
    return generate(samples.load_model(folder / "model"))


# --- how much ------------------------------------------------------------------------------------


def test_a_body_above_the_limit_is_answered_413_however_it_is_sent(columns: Any, talk: Any) -> None:
    large = json.dumps({"inputs": [{"weight": 1, "name": "x" * 1000}]})
    found = talk(
        columns,
        Ask(large),
        Ask(large, chunks=100),
        Ask(large, path="/docs.json", method="GET"),
        Ask(large, headers={**JSON, "content-length": "5000000000000000000000"}),
        Ask(large, headers={**JSON, "content-length": "-1"}),
        Ask(json.dumps(GOOD), headers={**JSON, "content-encoding": "gzip"}),
        Ask(GOOD, chunks=3),
        KFP_BENTO_MAX_BODY_BYTES="1000",
    )
    assert found.statuses == [413, 413, 413, 413, 400, 415, 200]
    assert found.bodies()[0] == {"error": "the body is larger than 1000 bytes"}
    assert "x" * 20 not in found.log


def test_huge_headers_and_other_media_are_refused(columns: Any, talk: Any) -> None:
    body = json.dumps(GOOD)
    others = ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]
    others += ["application/vnd.bentoml+pickle", "application/octet-stream"]
    found = talk(
        columns,
        Ask(body, headers={**JSON, "x-long": "y" * 40_000}),
        *(Ask(body, headers={"content-type": other}) for other in others),
        Ask(body, headers={"origin": "https://a.page.example"}),
        Ask(body, headers={}),
        Ask(body, headers={"content-type": "application/json; charset=utf-8\xff"}),
    )
    assert found.statuses == [431, *[415] * len(others), 415, 200, 200]


def numbered(count: int) -> str:
    return ",".join(f'"{n:x}":1' for n in range(count))


HEAVY = {
    "rows": '{"inputs":[' + ",".join(["{}"] * 300_000) + "]}",
    "bad rows": '{"inputs":[' + ",".join(["{}"] * 99_000) + "]}",
    "bad items": '{"inputs":[{"weight":1,"numbers":[' + "[]," * 400_000 + "1]}]}",
    "bad map": '{"inputs":[{"weight":1,"map":{' + numbered(90_000).replace(":1", ':"a"') + "}}]}",
    "lists": '{"inputs":[' + "[]," * 500_001 + "[]]}",
    "deep": '{"inputs":' + "[" * 100_000 + "]" * 100_000 + "}",
    "unclosed": '{"inputs":' + "[" * 100_000,
    "keys": '{"inputs":[{"weight":1,' + numbered(100_001) + "}]}",
    "long key": '{"inputs":[{"' + "k" * 1_000_000 + '":1}]}',
    "quotes": '{"inputs":"' + '\\"' * 1_000_000 + "[" * 1_000_001,
    "digits": '{"inputs":[{"weight":' + "9" * 100_000 + "}]}",
    "not a number": '{"inputs":[{"weight":NaN, "at": Infinity}]}',
    "twice": '{"inputs":[{"weight":1}],"inputs":[{"weight":"a"}]}',
    "after": '{"inputs":[{"weight":1}]}{}',
    "bytes": "\xff\xfe",
}


def test_small_requests_get_small_answers_and_one_line_in_the_log(columns: Any, talk: Any) -> None:
    found = talk(columns, *(Ask(body) for body in HEAVY.values()))
    assert dict(zip(HEAVY, found.statuses, strict=True)) == dict.fromkeys(HEAVY, 400)
    sizes = {name: len(answer["text"]) for name, answer in zip(HEAVY, found.answers, strict=True)}
    assert max(sizes.values()) < 4096, sizes
    # The reason, and the line of the access log.
    assert len(found.log.splitlines()) == 2 * len(HEAVY), found.log
    assert len(found.log) < 600 * len(HEAVY)


def test_the_first_problems_are_told_with_their_rows(columns: Any, talk: Any) -> None:
    rows: list[Any] = [{"weight": n} for n in range(200)]
    rows[70], rows[130] = {}, {"weight": "a", "name": 5}
    many = [{"weight": "a"}] * 1000
    some, all_wrong, with_rest = (
        body["detail"]
        for body in talk(
            columns,
            Ask({"inputs": rows}),
            Ask({"inputs": many}),
            Ask({"more": 1, "inputs": rows}),
        ).bodies()
    )
    places = [["inputs", 70, "weight"], ["inputs", 130, "weight"], ["inputs", 130, "name"]]
    assert [problem["loc"] for problem in some] == places
    assert [problem["loc"] for problem in all_wrong] == [["inputs", n, "weight"] for n in range(20)]
    assert with_rest[0]["loc"] == ["more"]


def test_a_row_with_a_long_text_and_many_missing_keys_is_not_copied_for_each(
    tmp_path: Path, generate: Any, talk: Any
) -> None:
    schema = Schema([ColSpec("double", f"c{n}") for n in range(3000)])
    service = generate(samples.save_echo(tmp_path / "wide", schema))
    body = '{"inputs":[{"c0":1,"c1":"' + "x" * 8_000_000 + '"}]}'  # copies would take 24 GB
    (answer,) = talk(service, Ask(body)).bodies()
    assert [problem["type"] for problem in answer["detail"]] == ["missing"] * 20


def test_limits_are_variables(columns: Any, talk: Any) -> None:
    two = {"inputs": [{"weight": 1}, {"weight": 2}]}
    many = {"inputs": [{"weight": 1, "numbers": [1] * 50}]}
    keys = {"inputs": [{"weight": 1, "map": {str(n): n for n in range(30)}}]}
    text = {"inputs": [{"weight": 1, "name": '[,{"' * 50}]}  # no values, only a text
    found = talk(
        columns,
        *map(Ask, (GOOD, two, many, keys, text)),
        KFP_BENTO_MAX_ROWS="1",
        KFP_BENTO_MAX_VALUES="40",
        KFP_BENTO_MAX_KEYS="20",
    )
    assert found.statuses == [200, 400, 400, 400, 200]
    told = [body["detail"][0]["msg"] for body in found.bodies()[1:4]]
    assert told[0].startswith("more than 1 rows")
    assert told[1].startswith("more than 40 values")
    assert told[2].startswith("an object has more than 20 keys")


def test_what_would_grow_in_memory_is_refused(tensors: Any, free: Any, talk: Any) -> None:
    tall_and_wide = {"inputs": [{f"k{n}": 1} for n in range(50_000)]}  # 20 GB as a DataFrame
    long_and_many = ["x" * 1_000_000, *["y"] * 100_000]  # 400 GB as an array
    pair = {"pair": [[1, 2]], "at": ["2024-05-06T07:08:09"]}
    of_free = talk(free, Ask(tall_and_wide), Ask({"inputs": long_and_many}))
    of_tensors = talk(
        tensors,
        Ask({"inputs": {**pair, "text": long_and_many}}),
        Ask({"inputs": {**pair, "text": ["a", "b"]}}),
    )
    assert of_free.statuses == [400, 400]
    assert of_tensors.statuses == [400, 200], of_tensors.answers


# --- what is told --------------------------------------------------------------------------------


def test_values_reach_neither_answers_nor_the_log(
    columns: Any, tensors: Any, free: Any, talk: Any
) -> None:
    good = {"pair": [[1, 2]], "text": ["a"], "at": ["2024-05-06T07:08:09"]}
    found = [
        talk(
            columns,
            *(
                Ask({"inputs": [{"weight": 1, **wrong}]})
                for wrong in (
                    {"weight": SECRET},
                    {"numbers": [SECRET]},
                    {"map": {"a": SECRET}},
                    {"limits": {"low": SECRET}},
                    {"at": SECRET},
                    {"bin": SECRET + "!"},
                    {"weight": {"deep": [SECRET]}},
                )
            ),
            Ask(f'{{"inputs":[{{"weight":{SECRET}}}]}}'),
            Ask(f'{{"inputs":[{{"weight":1}}], "params": "{SECRET}"}}'),
            Ask({"inputs": SECRET}),
        ),
        talk(
            tensors,
            *(
                Ask({"inputs": {**good, **wrong}})
                for wrong in (
                    {"pair": [[SECRET, 2]]},
                    {"pair": SECRET},
                    {"text": [[SECRET]]},
                    {"text": [{"a": SECRET}]},
                    {"at": [SECRET]},
                    {"at": [{"a": SECRET}]},
                )
            ),
        ),
        talk(free, Ask({"inputs": [[SECRET], [SECRET, 1]]}), Ask({"inputs": {"a": [[SECRET], 1]}})),
    ]
    for conversation in found:
        assert set(conversation.statuses) == {400}, conversation.answers
        assert SECRET not in conversation.log
        assert not [answer for answer in conversation.answers if SECRET in answer["text"]]


def test_a_refusing_model_is_logged_by_place_and_not_by_value(failing: Any, talk: Any) -> None:
    bodies = [{"inputs": [{"text": text}]} for text in (SECRET, f"checked {SECRET}")]
    found = talk(failing, *map(Ask, bodies))
    assert found.statuses == [400, 400]
    assert SECRET not in str(found.answers) + found.log
    assert "builtins.KeyError" in found.log and "builtins.ValueError" in found.log
    assert "in predict" in found.log
    assert "KFP_BENTO_LOG_VALUES=true" in found.log
    shown = talk(failing, Ask(bodies[0]), KFP_BENTO_LOG_VALUES="true")
    assert f"ValueError: bad {SECRET}" in shown.log
    assert SECRET not in shown.answers[0]["text"]


def test_debugging_shows_callers_nothing_more(failing: Any, talk: Any) -> None:
    found = talk(failing, Ask({"inputs": [{"text": SECRET}]}), BENTOML_DEBUG="true")
    assert found.statuses == [400]
    assert "Traceback" not in found.answers[0]["text"]


def test_what_mlflow_refuses_is_told_without_values(
    tmp_path: Path, generate: Any, talk: Any
) -> None:
    source = tmp_path / "hinted.py"
    source.write_text(
        "import mlflow\n"
        "class Hinted(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, model_input: list[dict[str, int]], params=None) -> list[str]:\n"
        "        return ['' for _ in model_input]\n"
        "mlflow.models.set_model(Hinted())\n"
    )
    mlflow.pyfunc.save_model(tmp_path / "hinted", python_model=str(source), **samples.QUICK)
    service = generate(samples.load_model(tmp_path / "hinted"))
    found = talk(service, Ask({"inputs": [{"a": SECRET}]}))
    assert found.statuses == [400]
    assert SECRET not in str(found.answers) + found.log


def test_unknown_paths_are_answered_before_anything_counts_or_logs_them(
    columns: Any, talk: Any
) -> None:
    paths = ["/" + "x" * 5000, "/static_content/nothing.css", "/a%0Ab", "/predict/../b"]
    found = talk(
        columns,
        *(Ask(path=path, method="GET") for path in paths),
        Ask(path="/static_content/swagger-ui.css", method="GET"),
        Ask(path="/predict", method="GET"),
    )
    assert found.statuses == [404, 404, 404, 404, 200, 405]
    assert len(found.log.splitlines()) == 6
    assert max(map(len, found.log.splitlines())) < 400


def test_answers_tell_browsers_to_keep_them_to_themselves(columns: Any, talk: Any) -> None:
    page, prediction, refusal = talk(
        columns, Ask(path="/", method="GET"), Ask(GOOD), Ask(path="/nowhere", method="GET")
    ).answers
    for answer in (page, prediction, refusal):
        assert answer["headers"]["x-content-type-options"] == "nosniff"
        assert answer["headers"]["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer["headers"]["content-security-policy"]
        assert "access-control-allow-origin" not in answer["headers"]
    # The page brings a script of a stranger's server, in its text: only its own files may run.
    assert "googletagmanager" in page["text"]
    assert page["headers"]["content-security-policy"].startswith("default-src 'self';")


def test_the_api_page_shows_no_example_where_it_is_switched_off(
    tmp_path: Path, generate: Any, talk: Any
) -> None:
    example = json.dumps({"inputs": [{"weight": 1, "name": SECRET}]})
    model = samples.save_echo(tmp_path / "model", SCHEMA, example=example)
    pages = [Ask(path=path, method="GET") for path in ("/docs.json", "/schema.json")]
    service = generate(model)
    shown = talk(service, *pages)
    off = talk(service, *pages, KFP_BENTO_SHOW_EXAMPLE="false")
    without = generate(model, show_example=False)
    never = talk(without, *pages)
    assert SECRET in shown.answers[0]["text"]
    assert SECRET not in str(off.answers) + str(never.answers)
    assert off.statuses == never.statuses == [200, 200]
    assert not any(SECRET in path.read_text() for path in without.iterdir())


# --- who -----------------------------------------------------------------------------------------


def bearer(token: str) -> dict[str, str]:
    return {**JSON, "authorization": f"Bearer {token}"}


def test_a_token_is_needed_for_everything_but_the_health(columns: Any, talk: Any) -> None:
    paths = ["/", "/docs.json", "/schema.json", "/metrics", "/static_content/swagger-ui.css"]
    found = talk(
        columns,
        *(Ask(path=path, method="GET") for path in ("/livez", "/readyz", "/healthz")),
        *(Ask(path=path, method="GET") for path in (*paths, "/nowhere", "/livez/", "//livez")),
        Ask(GOOD),
        *(Ask(GOOD, headers=bearer(wrong)) for wrong in ("", TOKEN[:-1], TOKEN + "x", "\xff" * 16)),
        Ask(GOOD, headers={**JSON, "authorization": f"Basic {TOKEN}"}),
        Ask(GOOD, headers={**JSON, "authorization": TOKEN}),
        Ask(GOOD, headers=bearer(TOKEN)),
        Ask(path="/schema.json", method="GET", headers={"authorization": f"bearer {TOKEN}"}),
        Ask(GOOD, headers=bearer("another-token-of-32-characters-")),
        KFP_BENTO_API_TOKEN=f"{TOKEN}\nanother-token-of-32-characters-",
    )
    assert found.statuses[:3] == [200] * 3
    assert found.statuses[3:-3] == [401] * 15
    assert found.statuses[-3:] == [200, 200, 200]
    assert found.answers[3]["headers"]["www-authenticate"] == "Bearer"
    assert TOKEN[:-1] not in found.log


def test_a_token_in_a_file_is_read_again_when_it_changes(
    columns: Any, tmp_path: Path, talk: Any
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    newer = "a-newer-token-of-the-service"
    found = talk(
        columns,
        *(Ask(GOOD, headers=bearer(token)) for token in (TOKEN, newer)),
        Write(file, f"{newer}\n"),
        *(Ask(GOOD, headers=bearer(token)) for token in (TOKEN, newer)),
        Write(file, ""),
        Ask(GOOD, headers=bearer(newer)),
        Ask(GOOD, headers=bearer("")),
        KFP_BENTO_API_TOKEN_FILE=str(file),
    )
    assert found.statuses == [200, 401, 401, 200, 401, 401]
