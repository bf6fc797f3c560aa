"""The log of requests and answers: what stands in it, what does not, and what it never costs."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import random
import resource
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import packed_models as samples
import pytest
from bentoml.exceptions import BentoMLConfigException
from conversations import JSON, Ask
from mlflow.types import ColSpec, Schema, TensorSpec

import kfp_bento.runtime.bentos

if TYPE_CHECKING:
    from servers import S3Server

SECRET = "Ada-Lovelace-1815"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ROW = {"age in years": 31, "class": SECRET, "children": 0}
SCHEMA = Schema(
    [ColSpec("long", "age in years"), ColSpec("string", "class"), ColSpec("long", "children")]
)
SPLIT = {"columns": ["children", "class", "age in years"], "data": [[0, SECRET, 31]]}
INDEXED = {**SPLIT, "index": [SECRET]}


def tensor(name: str, value: Any, kind: str = "INT64") -> dict[str, Any]:
    return {"name": name, "shape": [1], "datatype": kind, "data": [value]}


TENSORS = [tensor("age in years", 31), tensor("class", SECRET, "BYTES"), tensor("children", 0)]
TABLE = {"name": "input-0", "shape": [1, 3], "datatype": "BYTES", "data": [["31", SECRET, "0"]]}
INFER = "/v2/models/people/infer"
CSV = {"content-type": "text/csv"}


@pytest.fixture(scope="module")
def people(tmp_path_factory: Any, generate: Any) -> Path:
    return generate(samples.save_echo(tmp_path_factory.mktemp("m") / "people", SCHEMA))


def traveller(name: str) -> Any:
    """A module that travels with every service."""
    folder = str(Path(kfp_bento.runtime.bentos.__file__).parent)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


# --- what stands in it ---------------------------------------------------------------------------


def test_a_line_says_what_was_asked_and_answered(people: Path, talk: Any, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    headers = {**JSON, "traceparent": PARENT, "authorization": "Bearer never-logged-by-anyone"}
    talked = talk(
        people,
        Ask({"inputs": [ROW]}, "/predict?never=asked", headers=headers),
        Ask({"inputs": [{**ROW, "children": "many"}]}),
        Ask("", "/readyz", "GET"),
        KFP_BENTO_REQUEST_LOG=str(file),
    )
    assert talked.statuses == [200, 400, 200], talked
    good, refused = lines(file)
    assert good["request"] == {"inputs": [ROW]}
    answers = [json.loads(answer["text"]) for answer in talked.answers[:2]]
    assert good["answer"] == answers[0]
    assert (good["path"], good["status"]) == ("/predict", 200)
    assert good["trace_id"] == PARENT[3:35]
    assert good["request_id"] == talked.answers[0]["headers"]["x-bentoml-request-id"]
    assert good["answer_bytes"] == len(talked.answers[0]["text"])
    assert 0 < good["seconds"] < 60
    assert good["time"].endswith("+00:00")
    assert (refused["status"], refused["answer"]) == (400, answers[1])
    assert "never" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o640


MAPPED = {**SPLIT, "columns": {name: n for n, name in enumerate(SPLIT["columns"])}}
TWICE = f'{{"a": {{"class": "{SECRET}"}}, "a": 2}}'
FORMS = [
    Ask({"inputs": [ROW]}),
    Ask({"dataframe_records": [ROW]}, "/invocations"),
    Ask({"dataframe_split": INDEXED}, "/invocations"),
    Ask({"inputs": {name: [value] for name, value in ROW.items()}}, "/invocations"),
    Ask(f"children,class,age in years\n0,{SECRET},31\n", "/invocations", headers=CSV),
    Ask({"instances": [ROW]}, "/v1/models/people:predict"),
    Ask({"inputs": TENSORS}, INFER),
    # As pandas reads them: blank lines and what Excel puts first do not count, and one value more
    # is an index.
    Ask(f"\nchildren,class,age in years\n0,{SECRET},31\n", "/invocations", headers=CSV),
    Ask(f"\xef\xbb\xbfclass,children,age in years\n{SECRET},0,31\n", "/invocations", headers=CSV),
    Ask(f"class,children,age in years\nx,{SECRET},0,31\n", "/invocations", headers=CSV),
    Ask({"dataframe_split": MAPPED}, "/invocations"),
    Ask({"dataframe_records": [{**ROW, "x": {"data": 1, "name": []}}]}, "/invocations"),
    Ask({"dataframe_records": [{**ROW, "x": TWICE}]}, "/invocations"),
    Ask({"inputs": [{**ROW, "children": "many"}]}),
    Ask(f'{{"inputs": [{SECRET}'),
    Ask({"inputs": [[31, SECRET, 0]]}, "/invocations"),
]


def test_redacted_fields_stand_in_no_line_whatever_the_form(
    people: Path, talk: Any, tmp_path: Path
) -> None:
    file = tmp_path / "requests.jsonl"
    talked = talk(
        people,
        *FORMS,
        KFP_BENTO_REQUEST_LOG=str(file),
        # The echo model answers with the cells that it was asked.
        KFP_BENTO_REQUEST_LOG_REDACT="class, cells,output-1",
    )
    assert talked.statuses[:13] == [200] * 13, talked
    assert "KFP_BENTO_REQUEST_LOG_REDACT: no signature has a field 'cells'" in talked.log
    assert "no signature has a field 'class'" not in talked.log
    found = lines(file)
    assert len(found) == len(FORMS)
    assert SECRET not in file.read_text()
    kept = [one["request"] for one in found[:7]]
    assert kept[0] == {"inputs": [{**ROW, "class": "[redacted]"}]}
    assert kept[2]["dataframe_split"]["data"] == [[0, "[redacted]", 31]]
    assert kept[3]["inputs"]["class"] == "[redacted]"
    assert kept[4] == {**SPLIT, "data": [["0", "[redacted]", "31"]]}
    assert [one["data"] for one in kept[6]["inputs"]] == [[31], "[redacted]", [0]]
    assert all("31" in json.dumps(one) for one in kept), "other fields stay"
    refused = [one["request_left_out"] for one in found if one["status"] >= 400]
    assert refused == ["refused"] * len(refused)
    assert len(refused) >= 2


@pytest.mark.parametrize(
    ("body", "of_tensors", "left"),
    [
        ({"inputs": [{"a": {"ssn": 1, "b": [{"ssn": 2}]}}]}, False, {"a": {"b": [{}]}}),
        ({"inputs": [{"a": '{"ssn": "1"}'}]}, False, {"a": "{}"}),
        ({"inputs": [["1", 2]]}, False, None),
        ({"inputs": 1}, False, None),
        ({"inputs": [TABLE]}, True, None),
        ({"inputs": [{"name": "a", "data": [1]}]}, True, {"name": "a", "data": [1]}),
    ],
)
def test_values_without_a_name_are_replaced_where_inputs_have_names(
    body: Any, of_tensors: bool, left: Any
) -> None:
    found = traveller("pyfunc_redaction").Redaction(["ssn"], ["a", "ssn"]).request(body, of_tensors)
    text = (
        json.dumps(found)
        .replace('"ssn": "[redacted]", ', "")
        .replace('"ssn": "[redacted]"', "")
        .replace('\\"ssn\\": \\"[redacted]\\"', "")
    )
    if left is None:
        assert set(json.dumps(body)) - set(text) & set("12")
        assert not set("12") & set(text), text
    else:
        assert json.loads(text)["inputs"] == [left]


def test_bytes_of_tensors_stay_out_and_their_json_does_not(
    tmp_path_factory: Any, generate: Any, talk: Any, tmp_path: Path
) -> None:
    schema = Schema([TensorSpec(np.dtype("float32"), (-1, 2), "pair")])
    service = generate(samples.save_echo(tmp_path_factory.mktemp("m") / "pairs", schema))
    blob = np.array([[1.5, 2.5]], "float32").tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "pair",
                    "shape": [1, 2],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(blob)},
                }
            ]
        }
    )
    octets = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    file = tmp_path / "requests.jsonl"
    talked = talk(
        service,
        Ask(head + blob.decode("latin-1"), "/v2/models/pairs/infer", headers=octets),
        KFP_BENTO_REQUEST_LOG=str(file),
    )
    assert talked.statuses == [200], talked
    (line,) = lines(file)
    assert line["request"] == json.loads(head)
    assert line["request_bytes"] == len(head) + len(blob)


# --- how much ------------------------------------------------------------------------------------


def test_a_rate_takes_the_requests_whose_traces_are_sampled(
    people: Path, talk: Any, tmp_path: Path
) -> None:
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    ids = [format(random.Random(n).getrandbits(128), "032x") for n in range(60)]
    asks = [
        Ask({"inputs": [ROW]}, headers={**JSON, "traceparent": f"00-{one}-b7ad6b7169203331-01"})
        for one in ids
    ]
    file = tmp_path / "requests.jsonl"
    logged = {"KFP_BENTO_REQUEST_LOG": str(file), "KFP_BENTO_REQUEST_LOG_RATE": "0.25"}
    talk(people, *asks, **logged)
    bound = TraceIdRatioBased(0.25).bound
    wanted = [one for one in ids if int(one, 16) & (2**64 - 1) < bound]
    assert 5 < len(wanted) < 30
    assert [line["trace_id"] for line in lines(file)] == wanted


def test_of_large_bodies_only_the_size_is_logged(people: Path, talk: Any, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    body = {"inputs": [ROW] * 100}
    logged = {"KFP_BENTO_REQUEST_LOG": str(file), "KFP_BENTO_REQUEST_LOG_MAX_BYTES": "1000"}
    talk(people, Ask(body), **logged)
    (line,) = lines(file)
    assert (line["request_left_out"], line["request_bytes"]) == ("large", len(json.dumps(body)))
    assert "request" not in line
    assert line["answer_left_out"] == "large"


def test_a_full_file_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    file = traveller("pyfunc_log_places").File(path, 20, 2)
    for number in range(7):
        file.write([b"%d" % number * 9 + b"\n"])
    assert {one.name: one.read_text()[::10] for one in tmp_path.iterdir()} == {
        "requests.jsonl": "6",
        "requests.jsonl.1": "45",
        "requests.jsonl.2": "23",
    }
    path.unlink()  # as whoever gathers files does
    file.write([b"again\n"])
    assert path.read_text() == "again\n"


def test_of_lines_for_which_there_is_no_room_nothing_stays(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    places = traveller("pyfunc_log_places")
    file = places.File(path, 1 << 20, 2)
    file.write([b"whole\n"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # the disk is full after 100 bytes
    try:
        with pytest.raises(OSError, match="too large"):
            file.write([b"x" * 200 + b"\n"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_text() == "whole\n"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"": "requests.jsonl"}, "is no absolute path, s3://bucket/prefix or stdout"),
        ({"": "/nowhere/at/all/requests.jsonl"}, "cannot be written: No such file or directory"),
        ({"": "s3://"}, "is not s3://bucket/prefix"),
        ({"": "s3://bucket/x"}, "holds nothing that writes to a bucket; build it with the option"),
        ({"": "stdout", "_RATE": "2"}, "RATE is no number from 0 to 1"),
        ({"": "stdout", "_RATE": "1e-3"}, "RATE is no number from 0 to 1"),
        ({"": "stdout", "_MAX_BYTES": "0"}, "MAX_BYTES is not a whole number above 0"),
        ({"": "stdout", "_REDACT": "[1]"}, "REDACT is no JSON list of names"),
        ({"": "stdout", "_REDACTED": "ssn"}, "REDACTED is no variable of the log of requests"),
        ({"_REDACTED": "ssn"}, "REDACTED is no variable of the log of requests"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(f"KFP_BENTO_REQUEST_LOG{name}", text)
    monkeypatch.setitem(sys.modules, "boto3", None)  # as in a bento that was built without it
    with pytest.raises(BentoMLConfigException, match=told):
        traveller("pyfunc_request_log").Settings.from_environment().open()


def test_a_service_with_such_settings_does_not_start(people: Path, talk: Any) -> None:
    talked = talk(people, Ask({"inputs": [ROW]}), KFP_BENTO_REQUEST_LOG_REDACTED="class")
    assert "REDACTED is no variable of the log of requests" in talked.error


# --- what it never costs -------------------------------------------------------------------------


@pytest.mark.slow  # a server of objects
def test_lines_in_a_bucket_and_a_bucket_that_takes_none(
    people: Path, talk: Any, s3_server: S3Server
) -> None:
    prefix = uuid.uuid4().hex
    asks = [Ask({"inputs": [ROW]})] * 3
    account = {**s3_server.environment, "AWS_DEFAULT_REGION": "us-east-1"}
    where = f"s3://{s3_server.bucket}/{prefix}/logs/"
    talked = talk(people, *asks, KFP_BENTO_REQUEST_LOG=where, **account)
    assert talked.statuses == [200] * 3
    client = s3_server.client()
    (found,) = client.list_objects_v2(Bucket=s3_server.bucket, Prefix=prefix)["Contents"]
    key = found["Key"]
    assert key.startswith(f"{prefix}/logs/")
    assert key.endswith(".jsonl.gz")
    body = client.get_object(Bucket=s3_server.bucket, Key=key)["Body"].read()
    written = [json.loads(line) for line in gzip.decompress(body).splitlines()]
    assert [line["request"] for line in written] == [{"inputs": [ROW]}] * 3

    stranger = account | {"AWS_SECRET_ACCESS_KEY": "another"}
    talked = talk(people, *asks, KFP_BENTO_REQUEST_LOG=where, **stranger)
    assert talked.statuses == [200] * 3
    reason = "The log of requests cannot be written: SignatureDoesNotMatch"
    assert talked.log.count(reason) == 1, talked.log


class Stuck:
    """A place that takes nothing until it may."""

    seconds = 0.0

    def __init__(self, log: Any) -> None:
        self.go = log.threading.Event()
        self.written: list[bytes] = []

    def write(self, lines: Any) -> None:
        self.go.wait(60)
        self.written += lines


def test_what_finds_no_room_is_dropped_and_counted_and_the_rest_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request_log = traveller("pyfunc_request_log")
    place = Stuck(request_log)
    monkeypatch.setattr(request_log.Settings, "open", lambda _: place)
    monkeypatch.setattr(request_log, "MOST_WAITING", 1000)
    monkeypatch.setattr(request_log, "PAUSE", 0.01)
    log = request_log.RequestLog(request_log.Settings("stdout"), list)
    asked, answer = request_log.Asked(b"[" + b"1," * 49 + b"1]"), request_log.Answer(b"[1]")
    for _ in range(100):
        log.add(request_log.Exchange(1.0, "/predict", 1, 2, 0.1, asked, answer))
    dropped = log._counted["dropped"]._value.get()
    assert dropped >= 80
    place.go.set()
    asyncio.run(log.end())
    assert len(place.written) == 100 - dropped == log._counted["written"]._value.get()
    log.add(request_log.Exchange(1.0, "/predict", 1, 2, 0.1, asked, answer))
    assert log._counted["dropped"]._value.get() == dropped + 1, "nothing is taken after the end"
