"""Conda packages in the words of pip, where it is known that they are the same.

The two name spaces are separate ones: a name that is not known here may be another package, or no
Python package at all, so nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SAME_NAMES = """
absl-py aiohttp altair annoy anthropic arch arrow attrs azure-core azure-identity
azure-storage-blob beautifulsoup4 black bokeh boto3 botocore cachetools catboost
category-encoders certifi cffi chardet charset-normalizer click cloudpickle colorama contourpy
coverage cryptography cvxpy cycler cython dask databricks-cli dataclasses-json datasets
decorator diffusers dill distributed docker docopt einops evaluate faiss fastai fastapi
fastparquet feature-engine filelock flask fonttools fsspec gensim gitpython google-auth
google-cloud-storage graphviz greenlet gunicorn h5py hdbscan holidays httpx huggingface-hub
hyperopt idna imageio imbalanced-learn implicit importlib-metadata ipython isodate jax jaxlib
jinja2 joblib jsonschema keras kiwisolver langchain langchain-core lifelines lightfm lightgbm
llvmlite loguru lxml mako markdown markupsafe matplotlib mlflow mlflow-skinny more-itertools
msgpack multidict networkx ngboost nltk numba numexpr numpy oauthlib onnx onnxruntime openai
openpyxl optuna orjson packaging pandas paramiko patsy peft pillow platformdirs plotly pmdarima
polars prometheus-client prophet protobuf psutil pyarrow pycparser pydantic pydantic-core
pygments pyjwt pymc pyod pyparsing python-dateutil python-dotenv python-multipart
pytorch-lightning pytz pywavelets pyyaml querystring-parser rapidfuzz redis regex requests rich
ruamel.yaml s3fs s3transfer safetensors scikit-image scikit-learn scikit-optimize
scikit-survival scipy seaborn sentence-transformers sentencepiece shap simplejson six skl2onnx
sktime slicer smart-open sortedcontainers spacy sqlalchemy sqlparse starlette statsforecast
statsmodels sympy tabulate tenacity tensorboard tensorflow textblob threadpoolctl thrift
tiktoken tokenizers toml tomli toolz torchmetrics torchvision tornado tqdm transformers tsfresh
typeguard typing-extensions tzlocal ujson umap-learn urllib3 uvicorn waitress websocket-client
werkzeug wrapt xgboost xlrd yarl zipp zstandard
"""
_SAME = frozenset(_SAME_NAMES.split())
"""Packages that conda's two large channels build of the distribution with this name."""

_OTHER = {
    "dask-core": "dask",
    "faiss-cpu": "faiss-cpu",
    "lightning": "lightning",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "onnxruntime-cpp": "",
    "pandera-core": "pandera",
    "prophet": "prophet",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "pyarrow-core": "pyarrow",
    "python-graphviz": "graphviz",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "seaborn-base": "seaborn",
    "tensorflow-base": "tensorflow",
    "tensorflow-cpu": "tensorflow-cpu",
    "torchvision": "torchvision",
    "websockets": "websockets",
}
"""Names that differ; "" where pip has nothing."""

# What an interpreter and wheels bring themselves, as `conda env export` lists it.
_PROVIDED = re.compile(
    r"python|pip|setuptools|wheel|python_abi|_libgcc_mutex|_openmp_mutex|_x86_64-microarch-level"
    r"|blas|libblas|libcblas|liblapack|liblapacke|mkl|mkl-service|mkl_fft|mkl_random|tbb|intel-openmp"
    r"|llvm-openmp|libllvm\d*|libopenblas|openblas|libgfortran\d?|libgfortran-ng|libgcc|libgcc-ng"
    r"|libgomp|libstdcxx|libstdcxx-ng|libcxx|bzip2|ca-certificates|ld_impl_linux-64"
    r"|ld_impl_linux-aarch64|libexpat|expat|libffi|liblzma|libnsl|libsqlite|libuuid|libxcrypt"
    r"|libzlib|ncurses|openssl|readline|sqlite|tk|tzdata|xz|zlib|zstd|vc|vc14_runtime"
    r"|vs2015_runtime|ucrt|libmpdec|numpy-base|libedit"
)
_MATCH_SPEC = re.compile(
    r"(?:[\w.:/-]+::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)\s*(?P<rest>.*)", re.S
)
_BRACKETS = re.compile(r"\[(?P<inside>[^\]]*)\]\s*$")
_BRACKET_VERSION = re.compile(r"version\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|([^,\]'\"]+))")
_CLAUSE = re.compile(
    r"(?P<operator>==|>=|<=|!=|~=|=|>|<)?\s*(?P<version>[0-9][0-9A-Za-z!+._]*(?:\.?\*)?)"
)


@dataclass(frozen=True)
class CondaPackage:
    """One package of a `conda.yaml`.

    Attributes:
        text: As it was written.
        name: Its name at conda, in lower case.
        distribution: The name that pip knows it by, or would.
        requirement: A requirement line that asks pip for it; "" where that is not known.
        pinned: The version, where one is stated: "3.8.5" of `python=3.8.5`.
        is_provided: Whether an interpreter and wheels bring it themselves.
    """

    text: str
    name: str
    distribution: str
    requirement: str = ""
    pinned: str = ""
    is_provided: bool = False


def parse_conda_package(text: str) -> CondaPackage:
    """Read an entry of `dependencies` in a `conda.yaml`: conda's MatchSpec.

    Args:
        text: Such as `numpy=1.26.4=py311h`, `conda-forge::scipy >=1.9,<2` or `pytorch==2.1`.
    """
    plain = text.partition("#")[0].strip()
    match = _MATCH_SPEC.fullmatch(plain)
    if match is None:
        return CondaPackage(text, plain.lower(), "")
    name = match["name"].lower()
    if _PROVIDED.fullmatch(name):
        specifier = _specifier(match["rest"]) or ""
        pin = re.fullmatch(r"==([0-9][0-9.]*?)(?:\.\*)?", specifier)
        return CondaPackage(text, name, name, pinned=pin[1] if pin else "", is_provided=True)
    known = _OTHER.get(name, name if name in _SAME else "")
    distribution = re.sub(r"[-_.]+", "-", known or name)
    asked = _specifier(match["rest"]) if known else None
    return CondaPackage(text, name, distribution, "" if asked is None else f"{known}{asked}")


def _specifier(rest: str) -> str | None:
    """Give a version as pip writes it; None for what pip cannot say.

    Conda's `=1.9` is any 1.9, `==1.9` that very one; a second `=` names a build, which pip has not.
    """
    rest = rest.strip()
    if found := _BRACKETS.search(rest):
        stated = _BRACKET_VERSION.search(found["inside"])
        rest = (
            next(filter(None, stated.groups()), "") if stated else rest[: found.start()]
        ).strip()
        rest = (
            rest
            if not rest or not rest[0].isdigit()
            else f"={rest}"
            if "*" in rest
            else f"=={rest}"
        )
    # `name 1.2 build` and `name=1.2=build`
    words = rest.split()
    if len(words) > 1 and not any(letter in rest for letter in ",<>|"):
        rest = words[0]
    exact = re.fullmatch(r"(=?)([0-9][^=,|<>\s]*)(?:=[^=,|<>\s]*)?", rest)
    if exact and rest.count("=") > (1 if exact[1] else 0):
        rest = f"=={exact[2]}" if "*" not in exact[2] else f"={exact[2]}"
    if not rest or rest == "*":
        return ""
    clauses = [_clause(part.strip()) for part in rest.split(",")]
    return None if "|" in rest or None in clauses else ",".join(filter(None, clauses))


def _clause(text: str) -> str | None:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        return None
    operator, version = match["operator"] or "==", match["version"]
    bare = version.rstrip("*").rstrip(".")
    if operator == "=" or version.endswith("*"):
        if operator in ("=", "=="):
            return f"=={bare}.*"
        if operator == "!=":
            return f"!={bare}.*"
        return f"{operator}{bare}"
    return f"{operator}{version}"
