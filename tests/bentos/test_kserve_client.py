"""A generated service asked by KServe's and Triton's own clients, each in its own environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import packed_models as samples
import pytest
from small_models import small_model

from kfp_bento.runtime.bentos import build_bento

if TYPE_CHECKING:
    from collections.abc import Callable

UV = Path(sys.executable).with_name("uv")
ASK = """
import asyncio, json, sys
import numpy as np
from kserve import InferInput, InferRequest, InferenceRESTClient, RESTConfig

base, rows = sys.argv[1], np.array(json.loads(sys.argv[2]))

async def main():
    told = {}
    for protocol in ("v1", "v2"):
        client = InferenceRESTClient(RESTConfig(protocol=protocol, retries=0, timeout=60))
        told[f"{protocol} ready"] = await client.is_model_ready(base, "wine")
        if protocol == "v1":
            names = json.loads(sys.argv[3])
            body = {"instances": [dict(zip(names, row)) for row in rows.tolist()]}
            found = await client.infer(base, body, model_name="wine")
            told["v1"] = found["predictions"]
            continue
        told["live"] = await client.is_server_live(base)
        told["ready"] = await client.is_server_ready(base)
        for binary in (False, True):
            tensor = InferInput("x", list(rows.shape), "FP64")
            tensor.set_data_from_numpy(rows, binary_data=binary)
            given = {"binary_data_output": binary}
            asked = InferRequest("wine", [tensor], parameters=given)
            found = await client.infer(base, asked, model_name="wine")
            told[f"v2 {binary}"] = found.outputs[0].as_numpy().flatten().tolist()
    print(json.dumps(told))

asyncio.run(main())
"""


ASK_TRITON = """
import json, sys
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

client, rows = InferenceServerClient(sys.argv[1]), json.loads(sys.argv[2])

def tensor(name, data):
    array = np.array(data)
    array = array.astype(object) if array.dtype.kind == "U" else array
    kind = {"f": "FP64", "i": "INT64", "b": "BOOL", "O": "BYTES"}[array.dtype.kind]
    found = InferInput(name, list(array.shape), kind)
    found.set_data_from_numpy(array, binary_data=True)
    return found

given = [tensor(name, data) for name, data in rows.items()]
named = [InferRequestedOutput(name, binary_data=True) for name in ("number", "text", "flag")]
found = client.infer("kinds", given, outputs=named)
told = {one.name(): found.as_numpy(one.name()).flatten().tolist() for one in named}
told["text"] = [text.decode() for text in told["text"]]
told["extensions"] = client.get_server_metadata()["extensions"]
print(json.dumps(told))
"""
KINDS = """
import pandas as pd

def _load_pyfunc(path):
    return Model()

class Model:
    def predict(self, inputs, params=None):
        assert list(map(str, inputs.dtypes))[:2] == ["float64", "int64"]
        return inputs.assign(number=inputs["number"] * 2)
"""


def installed(package: str, folder: Path) -> Path:
    """The Python of an environment of its own."""
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder], check=True)
    python = folder / "bin/python"
    subprocess.run([UV, "pip", "install", "-q", "--python", python, package], check=True)
    return python


def asked_with(python: Path, program: str, *given: str) -> Any:
    asked = subprocess.run(
        [python, "-c", program, *given], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(asked.stdout.splitlines()[-1])


@pytest.mark.slow
def test_tritons_client_sends_bytes_and_gets_bytes(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    python = installed("tritonclient[http]", tmp_path / "triton")
    types = {"number": "double", "count": "long", "flag": "boolean", "text": "string"}
    inputs = tuple({"name": n, "type": t, "required": True} for n, t in types.items())
    model = small_model(tmp_path / "kinds", KINDS, inputs=inputs, outputs=None, example=None)
    bento = build_bento([model], tmp_path / "bento")
    rows = {"number": [1.5, -2.0], "count": [2**53 + 1, 2], "flag": [True, False]}
    rows["text"] = ["\u00e4, b", ""]
    home = tmp_path / "home"
    home.mkdir()
    with serve(bento.directory, home) as send:
        told = asked_with(python, ASK_TRITON, f"127.0.0.1:{send.port}", json.dumps(rows))
    assert told.pop("extensions") == ["binary_tensor_data"]
    assert told == {"number": [3.0, -4.0], "text": rows["text"], "flag": rows["flag"]}


@pytest.mark.slow
def test_kserves_client_finds_a_v1_and_a_v2_server(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    python = installed("kserve", tmp_path / "kserve")  # it caps pandas below ours
    bento = build_bento([samples.save_wine(tmp_path / "wine")], tmp_path / "bento")
    rows = samples.wine_columns().head(5)
    home = tmp_path / "home"
    home.mkdir()
    with serve(bento.directory, home) as send:
        expected = send("/predict", {"inputs": rows.to_dict("records")})[1]
        base = f"http://127.0.0.1:{send.port}"
        given = (base, json.dumps(rows.to_numpy().tolist()), json.dumps(list(rows.columns)))
        told = asked_with(python, ASK, *given)
    assert [told.pop(name) for name in ("v1", "v2 False", "v2 True")] == [expected] * 3
    assert set(told.values()) == {True}
