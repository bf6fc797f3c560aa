"""A generated service asked by KServe's own client, in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import packed_models as samples
import pytest

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
        tensor = InferInput("x", list(rows.shape), "FP64")
        tensor.set_data_from_numpy(rows, binary_data=False)
        found = await client.infer(base, InferRequest("wine", [tensor]), model_name="wine")
        told["v2"] = found.outputs[0].as_numpy().flatten().tolist()
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.mark.slow
def test_kserves_client_finds_a_v1_and_a_v2_server(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    environment = tmp_path / "kserve"  # it caps pandas below ours
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, environment], check=True)
    python = environment / "bin/python"
    subprocess.run([UV, "pip", "install", "-q", "--python", python, "kserve"], check=True)
    bento = build_bento([samples.save_wine(tmp_path / "wine")], tmp_path / "bento")
    rows = samples.wine_columns().head(5)
    home = tmp_path / "home"
    home.mkdir()
    with serve(bento.directory, home) as send:
        expected = send("/predict", {"inputs": rows.to_dict("records")})[1]
        base = f"http://127.0.0.1:{send.port}"
        given = (base, json.dumps(rows.to_numpy().tolist()), json.dumps(list(rows.columns)))
        asked = subprocess.run(
            [python, "-c", ASK, *given], check=True, capture_output=True, text=True
        )
    told = json.loads(asked.stdout.splitlines()[-1])
    assert told.pop("v1") == expected
    assert told.pop("v2") == expected
    assert set(told.values()) == {True}
