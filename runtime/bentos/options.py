"""The rarer wishes of a build: typed, refused by the field's name, part of what the bento is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
)

from kfp_bento.runtime.bentos.service_source import EVERY_PROTOCOL, PROTOCOLS, Speech
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.programs import names_secret
from kfp_bento.runtime.validation import Refused, plain, problems, quoted, unknown_option, valid

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What Kubernetes takes as labels, so that a release can carry them on.
_LABEL_NAME = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_LONGEST_VALUE = 32 << 10

TRACE_EXPORTER = "opentelemetry-exporter-otlp-proto-http"
"""What sends traces; it fits one version of OpenTelemetry's SDK, so that the lock chooses it."""

BUCKET_WRITER = "boto3>=1.36"
"""What writes to a bucket."""

_PUBLIC = (
    "What a bento sets is public with its image: give it to the release, from a Secret "
    "(deploy_envs: [{name: ..., valueFrom: {secretKeyRef: {name: ..., key: ...}}}])."
)


def _package_problem(name: str) -> str:
    return "" if _PACKAGE.fullmatch(name) else "is no name of a Debian package"


def _variable_problem(name: str) -> str:
    return "" if _VARIABLE.fullmatch(name) and name != "PATH" else "cannot name a variable"


def _label_problem(name: str) -> str:
    return "" if _LABEL_NAME.fullmatch(name) else "is no name of a label"


def _label_value_problem(value: str) -> str:
    return "" if _LABEL_VALUE.fullmatch(value) else "is no value of a label"


def _value_problem(value: str) -> str:
    return "is too long or holds a NUL" if len(value) > _LONGEST_VALUE or "\0" in value else ""


def _number_as_text(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _as_mapping(given: Any) -> Any:
    """Give variables as a mapping; a list of name and value is what Kubernetes has."""
    if not isinstance(given, list):
        return given
    found: dict[str, Any] = {}
    for index, entry in enumerate(given):
        if not isinstance(entry, dict) or entry.keys() != {"name", "value"}:
            raise Refused(
                ": it is no name and value", "Write {name: ..., value: ...}.", f"[{index}]"
            )
        if entry["name"] in found:
            raise Refused(f": {entry['name']} is given twice", "Keep one of them.", f"[{index}]")
        found[entry["name"]] = entry["value"]
    return found


def _public(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if names_secret(name):
            raise Refused(": its name promises a secret", _PUBLIC, f"[{name}]")
    return dict(sorted(variables.items()))


_Package = Annotated[
    str, valid(_package_problem, "Write it as apt-get install takes it: libgomp1.")
]
_Variable = Annotated[str, valid(_variable_problem, "Use letters, digits and '_', and not PATH.")]
_Value = Annotated[
    str,
    BeforeValidator(quoted),
    BeforeValidator(_number_as_text),
    valid(_value_problem, "Put a long value into a file beside the service."),
]
_Label = Annotated[str, valid(_label_problem, "For example team or example.com/team.")]
_LabelValue = Annotated[
    str,
    BeforeValidator(quoted),
    valid(_label_value_problem, "Use up to 63 letters, digits, '.', '_' and '-'."),
]


class BentoOptions(BaseModel):
    """What one may wish of a bento besides its name, service, requirements and Python.

    The order in which system packages, variables and labels are given does not matter, also not
    for the bento's version.

    Attributes:
        show_example: Whether a generated service's API page shows a row of each model's input
            example, which may be somebody's data.
        protocols: What a generated service speaks besides JSON on /predict, of `PROTOCOLS`.
        max_batch_size: Most rows of requests that are put together into one call; 0 is not at all.
        max_latency_ms: How long a request waits for others at most, in milliseconds.
        traces: Whether it holds what sends OpenTelemetry's traces (OTLP over HTTP), where the
            variables `OTEL_*` of its release say where to.
        log_to_bucket: Whether it holds what writes the log of requests to a bucket, where
            `KFP_BENTO_REQUEST_LOG` of its release says so.
        system_packages: Debian packages for the image, with =version where pinned.
        envs: Variables of the service, public in its image: a mapping, or a list of name and value.
        labels: Labels of the bento.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    show_example: bool = True
    protocols: list[str] = list(PROTOCOLS)
    max_batch_size: int = 0
    max_latency_ms: int = 0
    traces: bool = False
    log_to_bucket: bool = False
    system_packages: Annotated[
        list[_Package], AfterValidator(lambda names: sorted(dict.fromkeys(names)))
    ] = []
    envs: Annotated[
        dict[_Variable, _Value], AfterValidator(_public), BeforeValidator(_as_mapping)
    ] = {}
    labels: Annotated[
        dict[_Label, _LabelValue], AfterValidator(lambda labels: dict(sorted(labels.items())))
    ] = {}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Read options as users and KFP write them; null stands for the default.

        Raises:
            InvalidInput: A name that is no option, or a value that cannot be.
        """
        for name in given:
            if name not in cls.model_fields:
                raise unknown_option(name, "the build of a bento", cls.model_fields)
        try:
            options = cls(
                **{name: plain(value) for name, value in given.items() if value is not None}
            )
        except ValidationError as error:
            problem = next(problems(cls, error))
            raise InvalidInput(f"{problem.sentence}.", hint=problem.hint) from None
        _ = options.speech  # what no service can speak is refused here as well
        return options

    @property
    def speech(self) -> Speech:
        """What a generated service speaks.

        Raises:
            InvalidInput: No service can speak so.
        """
        return Speech(tuple(self.protocols), self.max_batch_size, self.max_latency_ms)

    def requirements(self) -> list[str]:
        """Give what the bento needs besides what its models and its service need."""
        wanted = ((self.traces, TRACE_EXPORTER), (self.log_to_bucket, BUCKET_WRITER))
        return [requirement for is_wanted, requirement in wanted if is_wanted]

    def require_own_service(self) -> None:
        """Refuse what is for generated services only.

        Raises:
            InvalidInput: Something of it is set.
        """
        if not self.show_example:
            raise InvalidInput(
                "show_example=False is for generated services; what yours shows is up to it.",
                hint="Leave show_example as it is.",
            )
        if self.log_to_bucket:
            raise InvalidInput(
                "log_to_bucket is for generated services; what yours logs is up to it.",
                hint="Leave log_to_bucket as it is, and name what your service needs among its "
                "requirements.",
            )
        if self.speech != EVERY_PROTOCOL:
            raise InvalidInput(
                "Protocols and batching are for generated services; what yours speaks is up to it.",
                hint="Leave protocols, max_batch_size and max_latency_ms as they are.",
            )

    def wishes(self) -> dict[str, Any]:
        """Give what BentoML's build is told, besides what a build file says."""
        return {
            "system_packages": self.system_packages,
            "envs": self.envs,
            "labels": self.labels,
        }
