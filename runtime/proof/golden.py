"""`Golden`: requests and the answers that are right for them, which stand for the model later.

It is what the proof of a bento leaves behind: whoever checks a release needs it and nothing else,
neither the model nor an index nor an interpreter that can load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import CheckError, ModelError
from kfp_bento.runtime.files import load_record, save_record
from kfp_bento.runtime.models import ModelSignature
from kfp_bento.runtime.proof.comparing import KIND, VALUE
from kfp_bento.runtime.proof.content import Content
from kfp_bento.runtime.proof.differences import Tolerance

LARGEST_GOLDEN = 256 << 20
"""Bytes; the input examples may be pictures."""

FORMAT = 1
PURPOSE = "golden"
MODEL, SERVICE, REQUEST = "mlflow.pyfunc", "the service", "the request"
ON, OFF = "on", "off"
INDEPENDENT, DEPENDENT, UNKNOWN = "independent", "dependent", "unknown"

_AGAIN = "Build the bento again; its step writes them."
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class GoldenModel:
    """A model of the bento.

    Attributes:
        tag: Its tag in the bento.
        uri: Where it came from.
        version: Its registered version, or "".
        digest: `ModelVersion.digest`: what promotion asks for.
        signature: Its signature, or None.
    """

    tag: str
    uri: str
    version: str
    digest: str
    signature: ModelSignature | None = None


@dataclass(frozen=True)
class GoldenAnswer:
    """The right answer to a request.

    Attributes:
        status: HTTP status.
        content: The body.
        source: Who gave it: `MODEL`, `REQUEST` where the user wrote it down, or `SERVICE` where no
            model can be asked the same or it refuses the request.
    """

    status: int
    content: Content
    source: str


@dataclass(frozen=True)
class GoldenRequest:
    """One request.

    Attributes:
        label: What people call it, such as "all rows", "row 3", "given 1".
        source: "input example", "synthetic" (made from the signature), or "given".
        method: HTTP method.
        path: Path with its query.
        content: The body; None for none.
        headers: Besides the media type.
        model: Tag of the model whose prediction is the answer, or "".
        rows: How many rows it has; None where they cannot be told apart.
        row: Which row of the whole request it repeats by itself, or None.
        answer: The right answer; None where nobody was asked.
        compare: `VALUE`, or `KIND` where an answer is never the same twice.
    """

    label: str
    source: str
    method: str = "POST"
    path: str = "/predict"
    content: Content | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    rows: int | None = None
    row: int | None = None
    answer: GoldenAnswer | None = None
    compare: str = VALUE

    @property
    def place(self) -> str:
        """Method and path, as in "POST /predict"."""
        return f"{self.method} {self.path}"

    @property
    def is_predicted(self) -> bool:
        """Whether the answer is a prediction of the model; what nobody answered yet would be."""
        return bool(self.model) if self.answer is None else self.answer.source == MODEL


@dataclass(frozen=True)
class Golden:
    """What a bento was proven with.

    Attributes:
        bento: Its tag.
        models: Its models.
        requests: Requests with the right answers.
        verified: "on", or "off" where the bento was not started before it became an image.
        reason: How it was verified, or why not, in one sentence.
        tolerance: How far floats of an answer may be away.
        rows: Whether rows asked one by one and together agree: "independent", "dependent" or
            "unknown".
        rows_reason: Why, in one sentence.
        earlier: The day (UTC) of the earlier run that they are of; empty where this one asked.
            It is not in the file, which is the same for equal answers.
    """

    bento: str
    models: tuple[GoldenModel, ...]
    requests: tuple[GoldenRequest, ...]
    verified: str
    reason: str
    tolerance: Tolerance
    rows: str = UNKNOWN
    rows_reason: str = ""
    earlier: str = field(default="", compare=False)

    @property
    def told(self) -> str:
        """How it was verified, and when if not now, for people."""
        if not self.earlier:
            return self.reason
        return f"{self.reason} That was on {self.earlier}, in an earlier run."

    @property
    def is_verified(self) -> bool:
        """Whether the bento was started and its answers compared."""
        return self.verified == ON

    @property
    def answered(self) -> tuple[GoldenRequest, ...]:
        """The requests whose right answer is known."""
        return tuple(one for one in self.requests if one.answer is not None)

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of the models."""
        return tuple(model.digest for model in self.models)

    def signature_of(self, request: GoldenRequest) -> ModelSignature | None:
        """Give the signature of the model that a request asks, if it asks one."""
        return next((one.signature for one in self.models if one.tag == request.model), None)

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {
            "format": FORMAT,
            "bento": self.bento,
            "models": [_model_facts(model) for model in self.models],
            "requests": [_request_facts(request) for request in self.requests],
            "verified": self.verified,
            "reason": self.reason,
            "tolerance": {
                "relative": self.tolerance.relative,
                "absolute": self.tolerance.absolute,
            },
            "rows": {"are": self.rows, "reason": self.rows_reason},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Golden:
        """Read what `to_dict` gave.

        Raises:
            CheckError: A field is missing or is no such thing.
        """
        try:
            if data["format"] != FORMAT:
                raise ValueError(f"its format is {data['format']!r}, not {FORMAT}")
            tolerance = data["tolerance"]
            return cls(
                bento=_text(data["bento"], "bento"),
                models=tuple(_read_model(one) for one in data["models"]),
                requests=tuple(_read_request(one) for one in data["requests"]),
                verified=_one_of(data["verified"], (ON, OFF), "verified"),
                reason=_text(data["reason"], "reason"),
                tolerance=Tolerance(float(tolerance["relative"]), float(tolerance["absolute"])),
                rows=_one_of(data["rows"]["are"], (INDEPENDENT, DEPENDENT, UNKNOWN), "rows"),
                rows_reason=_text(data["rows"]["reason"], "rows"),
            )
        except (KeyError, TypeError, ValueError, AttributeError, ModelError) as error:
            said = f"{error!r}" if isinstance(error, KeyError) else str(error)
            raise CheckError(f"These are no golden answers: {said}.", hint=_AGAIN) from error

    def save(self, path: Path) -> str:
        """Write the file, sealed as our own, and give its digest for the steps that read it.

        Raises:
            CheckError: It cannot be written.
        """
        return save_record(self.to_dict(), PURPOSE, path, CheckError)

    @classmethod
    def load(cls, path: Path, *, record: str = "", claims: bool = True) -> Golden:
        """Read a file that `save` wrote.

        Args:
            path: The file.
            record: `sha256:…` of it, as the step that wrote it says; "" takes any.
            claims: Whether a file is taken that neither a step nor our own seal vouches for.

        Raises:
            CheckError: There is no such file, it holds no golden answers, or not those that the
                step wrote.
        """
        facts = load_record(
            path,
            PURPOSE,
            told=record,
            largest=LARGEST_GOLDEN,
            absent="There are no golden answers",
            changed=f"The golden answers in {path} are not those that the build wrote: somebody "
            "changed them.",
            error=CheckError,
            hint=_AGAIN,
            claims=claims,
        )
        return cls.from_dict(facts)


def load_given_golden(artifact: Any) -> Golden:
    """Read the golden answers of an input artifact: its `path`, and `record` of its metadata."""
    record = str((getattr(artifact, "metadata", None) or {}).get("record", ""))
    return Golden.load(Path(artifact.path), record=record)


def with_answer(request: GoldenRequest, status: int, content: Content, by: str) -> GoldenRequest:
    """Give a request with its right answer."""
    return replace(request, answer=GoldenAnswer(status, content, by))


def _model_facts(model: GoldenModel) -> dict[str, Any]:
    signature = None if model.signature is None else model.signature.to_dict()
    return {
        **{name: getattr(model, name) for name in ("tag", "uri", "version", "digest")},
        "signature": signature,
    }


def _read_model(data: Mapping[str, Any]) -> GoldenModel:
    texts = {name: _text(data[name], name) for name in ("tag", "uri", "version", "digest")}
    signature = data["signature"]
    return GoldenModel(
        **texts, signature=None if signature is None else ModelSignature.from_dict(signature)
    )


def _request_facts(request: GoldenRequest) -> dict[str, Any]:
    answer = request.answer
    texts = ("label", "source", "method", "path", "model", "rows", "row")
    return {
        **{name: getattr(request, name) for name in texts},
        "compare": request.compare,
        "headers": dict(request.headers),
        "body": None if request.content is None else request.content.to_dict(),
        "answer": None
        if answer is None
        else {
            "status": answer.status,
            "source": answer.source,
            "body": answer.content.to_dict(),
        },
    }


def _read_request(data: Mapping[str, Any]) -> GoldenRequest:
    body, answer = data["body"], data["answer"]
    return GoldenRequest(
        **{name: _text(data[name], name) for name in ("label", "source", "model")},
        method=_one_of(data["method"], _METHODS, "method"),
        path=request_path(data["path"]),
        content=None if body is None else Content.from_dict(body),
        headers=request_headers(data["headers"]),
        rows=_count(data["rows"], "rows"),
        row=_count(data["row"], "row"),
        compare=_one_of(data.get("compare", VALUE), (VALUE, KIND), "compare"),
        answer=None
        if answer is None
        else GoldenAnswer(
            read_status(answer["status"]),
            Content.from_dict(answer["body"]),
            _text(answer["source"], "source"),
        ),
    )


def request_path(value: Any) -> str:
    """Read a path that goes behind the URL of a service.

    Raises:
        ValueError: It is none, or could lead to another host.
    """
    text = _text(value, "path")
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"path {text[:80]!r} is no path such as /predict")
    return text


def request_headers(value: Any) -> dict[str, str]:
    """Read HTTP headers; what belongs to the connection, or is a login, is refused.

    Raises:
        ValueError: They are no headers, or not such that a file may hold.
    """
    if not isinstance(value, Mapping):
        raise ValueError("headers are no object")
    headers = {_text(name, "headers"): _text(text, "headers") for name, text in value.items()}
    for name, text in headers.items():
        if not name.isascii() or not name.replace("-", "").isalnum() or not text.isprintable():
            raise ValueError(f"the header {name[:80]!r} is none")
        if name.lower() in _NOT_OF_A_FILE:
            raise ValueError(f"the header {name!r} is not for a request that is written down")
    return headers


_NOT_OF_A_FILE = frozenset(
    (
        *("authorization", "connection", "content-length", "content-type", "cookie", "host"),
        *("proxy-authorization", "transfer-encoding", "upgrade"),
    )
)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def _one_of(value: Any, allowed: tuple[str, ...], name: str) -> str:
    if value not in allowed:
        raise ValueError(f"{name} is none of {', '.join(allowed)}")
    return str(value)


def _count(value: Any, name: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"{name} is no number")
    return value


def read_status(value: Any) -> int:
    """Read an HTTP status.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 100 <= value <= 599:
        raise ValueError("status is no HTTP status")
    return value
