"""What rendering needs to know of a bento: enough to render the same release without its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict

from kfp_bento.runtime.bentos import Bento, BentoModel
from kfp_bento.runtime.deployments.options.options import Settings
from kfp_bento.runtime.validation import problems, valid

if TYPE_CHECKING:
    from pathlib import Path

    from kfp_bento.runtime.models import ModelFacts

_ORIGIN = ("uri", "name", "version", "digest", "run_id")
_LONGEST_TEXT = 4096
_LONGEST_VALUE = 32 << 10  # as much as a bento takes


def _text_problem(text: str) -> str:
    good = len(text) <= _LONGEST_TEXT and text.isprintable()
    return "" if good else "is no such text"


_Text = Annotated[str, valid(_text_problem, "Build the bento again.")]


def _value_problem(text: str) -> str:
    return "" if len(text) <= _LONGEST_VALUE and "\0" not in text else "is no such text"


_Value = Annotated[str, valid(_value_problem, "Build the bento again.")]


class _Model(TypedDict):
    tag: _Text
    digest: _Text
    provenance: dict[_Text, _Text]


class _Runner(TypedDict, total=False):
    name: _Text
    runnableType: _Text
    modelTags: list[_Text]


class _Facts(BaseModel):
    model_config = Settings.model_config

    name: _Text
    version: _Text
    bentoml_version: _Text
    models: list[_Model]
    runners: list[_Runner]
    generated: bool
    takes_token: bool
    protocols: list[_Text] = []
    environment: dict[_Text, _Value] = {}
    moved: bool = False
    hidden: list[_Text] = []


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
        protocols: What a service that kfp-bento wrote speaks: some of mlflow, v2 and v1.
        environment: Variables that it leaves to its release (`envs` of the stage runtime).
        moved: Whether its service listens on another port or address than 3000 of all, unless a
            release says otherwise.
        hidden: What keeps probes from finding its service, wherever it listens.
        directory: Where it lies, where it is at hand; no part of the release.
        digest: Its digest, where it is at hand; no part of the release either.
    """

    name: str
    version: str
    bentoml_version: str = ""
    models: tuple[BentoModel, ...] = ()
    runners: tuple[Mapping[str, Any], ...] = ()
    generated: bool = False
    takes_token: bool = False
    protocols: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    moved: bool = False
    hidden: tuple[str, ...] = ()
    directory: Path | None = field(default=None, compare=False)
    digest: str = field(default="", compare=False)

    @property
    def tag(self) -> str:
        """BentoML's tag, `name:version`."""
        return f"{self.name}:{self.version}"

    @classmethod
    def of(cls, bento: Bento) -> BentoFacts:
        """Take the facts of a bento; its service is looked at in its folder."""
        from kfp_bento.runtime.bentos import can_require_token, spoken_protocols

        return cls(
            name=bento.name,
            version=bento.version,
            bentoml_version=bento.bentoml_version,
            models=tuple(_model(model) for model in bento.models),
            runners=tuple(_runner(runner) for runner in bento.runners),
            generated=(bento.directory / "src" / "pyfunc_json.py").is_file(),
            takes_token=can_require_token(bento),
            protocols=spoken_protocols(bento),
            environment=bento.environment,
            moved=bool(bento.listening.moved),
            hidden=tuple(told.shown for told, _ in bento.listening.hidden),
            directory=bento.directory,
            digest=bento.digest,
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the facts as plain JSON values."""
        facts = {key: getattr(self, key) for key in _Facts.model_fields}
        for later in ("environment", "moved", "hidden"):
            if not facts[later]:
                del facts[later]
        return {
            **facts,
            "models": [model.to_dict() for model in self.models],
            "runners": [dict(runner) for runner in self.runners],
            "protocols": [*self.protocols],
            **({"hidden": [*self.hidden]} if self.hidden else {}),
        }

    @classmethod
    def from_dict(cls, told: Any) -> BentoFacts:
        """Read what `to_dict` gave.

        Raises:
            ValueError: It is something else; the first field that is wrong is named.
        """
        try:
            _Facts.model_validate(told)
        except ValidationError as error:
            raise ValueError(next(problems(_Facts, error, "bento")).sentence) from None
        models = tuple(BentoModel(**model) for model in told["models"])
        lists = {name: tuple(told.get(name, ())) for name in ("runners", "protocols", "hidden")}
        return cls(**{**told, "models": models, **lists})


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
