"""What a page is read with: stand-ins for its hosts, excuses, and what it presumes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from world import World

Filled = Callable[[World, "re.Match[str]"], str]
_REGISTRIES = r"registry\.(?:example\.(?:com|org)|corp\.example)"

STAND_INS: dict[str, Filled] = {
    rf"{_REGISTRIES}/(?P<named>[\w./-]+)@sha256:\.\.\.": lambda world, found: (
        f"{world.registry}/{found['named']}@{world.digest(found['named'])}"
    ),
    _REGISTRIES: lambda world, _: world.registry,
    r"https://kubeflow\.example\.(?:com|org)/pipeline": lambda world, _: world.pipelines.url,
    r"http://mlflow(?:\.example\.com|:5000)": lambda world, _: world.mlflow,
    r"http://proxy\.corp\.example:3128": lambda world, _: world.proxy,
    r"https://index\.corp\.example/simple": lambda world, _: world.index,
    r"(?<![\w/])python:3\.11-slim(?=-trixie|\s|$)": lambda world, _: (
        f"{world.docker_hub}:3.11-slim"
    ),
    r"(?<=localhost:)\d{4}\b|(?<=127\.0\.0\.1:)\d{4}\b|(?<=--port )\d{4}\b": lambda world, found: (
        world.port(found[0])
    ),
    r"(?<=http://127\.0\.0\.1:)\d{5}\b": lambda world, _: world.read(r"127\.0\.0\.1:(\d+) until"),
    "lf4ipv": lambda world, _: "latest",
    # What an export has made is named by its version, which is read there.
    r"(?<=wine-)1f0c": lambda world, _: world.read(r"\bwine[:-]([0-9a-f]{8,})"),
}
"""What stands in place of what is written; of two that begin at the same place the first one."""
_ANY = re.compile("|".join(f"(?P<at{place}>{one})" for place, one in enumerate(STAND_INS)))

EXCUSES: dict[str, str] = {
    r"^kfp-bento demo |^make demo$": "tests/local/test_demo.py runs it",
    r"^make test(-cluster)?$": "it would run these tests",
    r"pytest tests/": "the same",
    r"^make examples(?! EXAMPLE=iris)": "tests/examples runs each of them, to the last answer",
    r"^kfp-bento install .*--training": "400 MB of packages; without them it is run",
    r"--model-only$": "it needs a base with a shell, which one of this machine's Python has not",
    r"^kfp-bento deploy apply -t inference-service .*--name llm": "what serves there is KServe's"
    " own; tests/cluster/test_real_operators.py applies one",
    r"create_webhook": "MLflow's server takes only hosts of public networks",
    r"^bentoml pull ": "it asks the cloud service of BentoML",
    r"^pip install ": "it would change the environment that the tests run in",
    r"import tritonclient|from tritonclient": "the package that the line before installs",
    r"--platform linux/amd64,linux/arm64": "it needs a base and a lock for both;"
    " tests/images/test_several_platforms.py makes them",
}
"""Commands that are not run, and why."""

LATER = {
    *(f"docs/{name}.md" for name in ("air-gapped", "bentos", "examples")),
    *(f"docs/{name}.md" for name in ("images", "migrate", "networks", "security", "short-road")),
    *("docs/yatai-builder.md", "examples/iris_the_old_way/README.md"),
    *("help", "help of clusters"),
}
"""Pages that were not gone through to their end yet; their commands are only parsed."""

CODES: dict[tuple[str, str], int] = {
    ("docs/gates.md", "--against contract.json"): 1,
}
"""Page and part of a command that ends with another code than 0, as the page says."""

MEASURES = re.compile(r"^kfp-bento check load ")
"""What ends with 1 on a machine that has much else to do."""

DECIDES = """
import bentoml


@bentoml.service
class Credit:
    @bentoml.api
    def decide(self, amount: float, limit: float = 100.0) -> dict[str, bool]:
        return {"granted": amount <= limit}
"""
IRIS = """
import bentoml

image = bentoml.images.Image(python_version="3.11", lock_python_packages=False)


@bentoml.service(name="iris_classifier", image=image)
class Iris:
    @bentoml.api
    def classify(self, length: float) -> str:
        return "setosa" if length < 2.5 else "versicolor"
"""


@dataclass(frozen=True)
class Presumed:
    """What is there when a reader comes to a page.

    Attributes:
        kept: Of what the world keeps, by the name that it has here.
        files: Content of what else is there, by name.
        before: Commands that the reader has given elsewhere.
        checkout: The reader is in a checkout of kfp-bento.
    """

    kept: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    checkout: bool = False


_MODEL = {"model": "model"}
_BENTO = {"bento": "bento"}
_WINE = {"wine.csv": "wine.csv"}
_IMAGE = "registry.example.com/ml/credit@sha256:... --bento bento -t workload -n models"
_OUT = f"kfp-bento deploy apply {_IMAGE} --confirm"
_OLD = {"bento": "bento", "old": "old-bento"}
_OLD_OUT = _OUT.replace("ml/credit", "ml/old").replace("--bento bento", "--bento old")
_SERVED = "kfp-bento bento serve ./bento --port 3000"
_OLDER = (
    "for v in 0f3c 9a1e; do cp -r old $v; sed -i \"s/^version: .*/version: '$v'/\" $v/bento.yaml; "
    "rm -f $v/.kfp-bento.json; done",
    "kfp-bento bento export 0f3c ./bentos/ --format tar.gz",
    "kfp-bento bento export 9a1e ./bentos/",
)
_KEY = (
    "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out cosign.key",
    "openssl pkey -in cosign.key -pubout -out cosign.pub",
)
_BASE = "kfp-bento image copy host registry.example.com/bases/python:3.11"

PRESUMED: dict[str, Presumed] = {
    "README.md": Presumed(checkout=True),
    "docs/first-hour.md": Presumed(checkout=True),
    "docs/examples.md": Presumed(checkout=True),
    "examples/iris_the_old_way/README.md": Presumed(checkout=True),
    "docs/models.md": Presumed(_MODEL),
    "docs/deploy.md": Presumed(
        {"old": "old-bento"}, {"serving.yaml": "termination_seconds: 60\n"}, (_OLD_OUT, *_KEY)
    ),
    "docs/releases.md": Presumed(_OLD, before=(_OLD_OUT, _OUT)),
    "docs/own-services.md": Presumed(
        {"cat.png": "cat.png"},
        before=(
            "kfp-bento bento build --service pictures.py --requests requests.yaml --to served",
            "kfp-bento bento serve ./served --port 3911",
        ),
    ),
    "docs/batch.md": Presumed(
        {"bento": "wine-bento", **_WINE},
        {"decide.py": DECIDES, "asked.yaml": "- {path: /decide, body: {amount: 5}}\n"}
        | {"applications.csv": "amount\n50\n150\n"},
        (
            "kfp-bento bento build --service decide.py --requests asked.yaml --to credit",
            "kfp-bento bento export bento s3://models/wine.bento",
            'python -c \'import boto3; boto3.client("s3").upload_file('
            '"wine.csv", "data", "wine/wine.csv")\'',
        ),
    ),
    "docs/triggers.md": Presumed(
        before=("export KFP_BENTO_WEBHOOK_SECRET=$(openssl rand -hex 16)",)
    ),
    "docs/air-gapped.md": Presumed(before=(_BASE,)),
    "docs/kubeflow.md": Presumed({"ca.crt": "ca.crt"}),
    "docs/migrate.md": Presumed(
        files={"service.py": IRIS, "bentofile.yaml": "service: service:Iris\n"},
        before=("bentoml build",),
    ),
    "docs/images.md": Presumed(_BENTO),
    "docs/stores.md": Presumed(
        {"bento": "bento", "old": "old-bento"},
        before=(*_OLDER, "kfp-bento bento export bento ./bentos/"),
    ),
    "docs/bentos.md": Presumed(
        files={"service.py": IRIS, "bentofile.yaml": "service: service:Iris\n"},
        before=("bentoml build", "bentoml export iris_classifier:latest iris.bento"),
    ),
    "docs/signing.md": Presumed(
        {**_BENTO, "credit-image": "credit-image"}, {"cosign.password": ""}, (_BASE,)
    ),
    "docs/scanning.md": Presumed(_MODEL),
    "docs/gates.md": Presumed(
        {"bento": "wine-bento", "champion": "wine-bento", "golden.json": "wine-golden"}
        | {"labelled.csv": "labelled.csv", "training.csv": "wine.csv", "today.csv": "wine.csv"}
        | {"wine-model": "wine-model"},
        before=(
            _SERVED,
            "kfp-bento bento build wine-model --to next --protocol mlflow",
            "kfp-bento bento serve ./next --port 3001",
        ),
    ),
    "docs/verification.md": Presumed(_MODEL),
    "docs/networks.md": Presumed(_BENTO),
    "docs/storage.md": Presumed({"bento": "wine-bento"}),
    "docs/monitoring.md": Presumed(_MODEL),
    "docs/protocols.md": Presumed(
        _MODEL,
        before=(
            "kfp-bento bento build model --to served --name wine",
            "kfp-bento bento serve ./served --port 3000",
        ),
    ),
    "docs/operating.md": Presumed(_OLD, before=(_OLD_OUT, _OUT)),
    "docs/security.md": Presumed(_MODEL),
    "docs/big-models.md": Presumed(_BENTO),
    "docs/yatai-builder.md": Presumed({"bento": "wine-bento"}),
}
_ASKED = (
    'import json, mlflow; image = "sha256:" + 64 * "0"; client = mlflow.MlflowClient(); '
    'client.set_model_version_tag("credit", "7", "kfp-bento.approval-asked.prod", '
    'json.dumps({"image": image, "until": "2999-01-01T00:00:00Z"}))'
)
PRESUMED["help"] = Presumed(
    {"wine-bento": "wine-bento", "golden.json": "wine-golden"}
    | {"wine.csv": "wine.csv", "today.csv": "wine.csv", "credit-image": "credit-image"},
    {
        "requirements.txt": "idna==3.10 --hash=sha256:"
        "946d195a0d259cbba61165e88e65941f16e9b36ea6ddb97f00452bae8b1287d3\n",
    },
    (
        *_KEY,
        "cp -r wine-bento 1f0c; sed -i 's/^version: .*/version: 1f0c/' 1f0c/bento.yaml; "
        "rm -f 1f0c/.kfp-bento.json",
        "kfp-bento bento export 1f0c ./bentos/",
        "kfp-bento bento export wine-bento s3://models/bentos/",
        "kfp-bento bento serve ./wine-bento --port 3001",
        "kfp-bento check contract http://localhost:3001 --save earlier.json",
        f"python -c '{_ASKED}'",
    ),
)
PRESUMED["help of clusters"] = Presumed(
    {**_OLD, "golden.json": "golden"},
    before=(_OLD_OUT, _OUT),
)
NEEDS_CLUSTER = re.compile(
    r"kubectl|deploy (apply|diff)|release (list|status|wait|confirm|roll-back|delete)"
    r"|--target workload -n|kfp-bento roll-back|check release"
)
NEEDS_OPERATORS = re.compile(
    r"-(t|-target) (bento-|inference-)|deploy apply(?!.* (-t|--target) )", re.MULTILINE
)
ASKS_NOBODY = re.compile(r"kfp-bento submit |python - <<|export ")


@cache
def excuse(command: str) -> str:
    """The pattern by which a command is excused, or ""."""
    return next((one for one in EXCUSES if re.search(one, command, re.MULTILINE)), "")


def filled(world: World, text: str) -> str:
    """The command as it is typed where the stand-ins are."""
    puts = list(STAND_INS.values())

    def put(found: re.Match[str]) -> str:
        place = next(n for n in range(len(puts)) if found[f"at{n}"] is not None)
        return puts[place](world, found)

    return _ANY.sub(put, text)
