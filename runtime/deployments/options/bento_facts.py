"""What rendering needs to know of a bento: enough to render the same release without its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from kfp_bento.runtime.bentos import Bento, BentoModel
from kfp_bento.runtime.deployments.kube.shapes import (
    Fields,
    Items,
    Pairs,
    Shape,
    Value,
    shape_problems,
)

if TYPE_CHECKING:
    from pathlib import Path

    from kfp_bento.runtime.models import ModelFacts

_ORIGIN = ("uri", "name", "version", "digest", "run_id")
_LONGEST_TEXT = 4096


def _text_problem(text: str) -> str:
    good = len(text) <= _LONGEST_TEXT and text.isprintable()
    return "" if good else "is no such text"


_TEXT, _TRUTH = Value(str, _text_problem), Value(bool)
_MODEL: Mapping[str, Shape] = {
    "tag": _TEXT,
    "digest": _TEXT,
    "provenance": Pairs(_text_problem, _text_problem),
}
_RUNNER: Mapping[str, Shape] = {"name": _TEXT, "runnableType": _TEXT, "modelTags": Items(_TEXT)}
_FACTS: Mapping[str, Shape] = {
    "name": _TEXT,
    "version": _TEXT,
    "bentoml_version": _TEXT,
    "models": Items(Fields(_MODEL, frozenset(_MODEL))),
    "runners": Items(Fields(_RUNNER, frozenset(_RUNNER))),
    "generated": _TRUTH,
    "takes_token": _TRUTH,
}


@dataclass(frozen=True)
class BentoFacts:
    """The facts of a bento that its release is made of.

    Attributes:
        name: Its name.
        version: Its version.
        bentoml_version: The BentoML that built it.
        models: Its models, with where they came from.
        runners: `name`, `runnableType` and `modelTags` of the runners of an old-style bento.
        generated: Whether kfp-bento wrote its service.
        takes_token: Whether its service asks for a token where it is given one.
        directory: Where it lies, where it is at hand; no part of the release.
    """

    name: str
    version: str
    bentoml_version: str = ""
    models: tuple[BentoModel, ...] = ()
    runners: tuple[Mapping[str, Any], ...] = ()
    generated: bool = False
    takes_token: bool = False
    directory: Path | None = field(default=None, compare=False)

    @property
    def tag(self) -> str:
        """BentoML's tag, `name:version`."""
        return f"{self.name}:{self.version}"

    @classmethod
    def of(cls, bento: Bento) -> BentoFacts:
        """Take the facts of a bento; its service is looked at in its folder."""
        from kfp_bento.runtime.bentos import can_require_token

        return cls(
            name=bento.name,
            version=bento.version,
            bentoml_version=bento.bentoml_version,
            models=tuple(_model(model) for model in bento.models),
            runners=tuple(_runner(runner) for runner in bento.runners),
            generated=(bento.directory / "src" / "pyfunc_json.py").is_file(),
            takes_token=can_require_token(bento),
            directory=bento.directory,
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the facts as plain JSON values."""
        return {
            **{key: getattr(self, key) for key in _FACTS},
            "models": [model.to_dict() for model in self.models],
            "runners": [dict(runner) for runner in self.runners],
        }

    @classmethod
    def from_dict(cls, told: Any) -> BentoFacts:
        """Read what `to_dict` gave.

        Raises:
            ValueError: It is something else; the first field that is wrong is named.
        """
        for problem in shape_problems(told, Fields(_FACTS, frozenset(_FACTS)), "bento"):
            raise ValueError(problem)
        models = tuple(BentoModel(**model) for model in told["models"])
        return cls(**{**told, "models": models, "runners": tuple(told["runners"])})


def _model(model: BentoModel) -> BentoModel:
    known: Mapping[str, Any] = model.provenance
    origin = {key: str(known[key]) for key in _ORIGIN if known.get(key)}
    return BentoModel(model.tag, model.digest, cast("ModelFacts", origin))


def _runner(runner: Mapping[str, Any]) -> dict[str, Any]:
    """Give a runner in one spelling; bento.yaml and BentoML's own objects have others."""
    models = runner.get("modelTags") or runner.get("model_tags") or runner.get("models") or []
    return {
        "name": str(runner.get("name") or ""),
        "runnableType": str(runner.get("runnableType") or runner.get("runnable_type") or ""),
        "modelTags": [str(tag) for tag in models],
    }
