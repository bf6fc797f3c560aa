"""How hard a service is asked, for how long, with what, and what it has to hold meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.validation import Refused, between, plain, problems, quoted, unknown_option

MOST_USERS = 1_000
MOST_REQUESTS = 1_000_000
LONGEST_SECONDS = 3_600
GOLDEN = "golden"
_MOST_ROWS = 10_000
_LARGEST_LIMIT = 1e9


def _within(lowest: float, highest: float, *, open_below: bool = False) -> AfterValidator:
    """Give the check of a number's bounds; also of one that is no whole number."""

    def check(value: float | None) -> float | None:
        if value is None or (lowest <= value <= highest and not (open_below and value == lowest)):
            return value
        bounds = f"above {lowest:g} and at most" if open_below else f"between {lowest:g} and"
        raise Refused(f": {value:g} is not {bounds} {highest:g}", "Choose a number in between.")

    return AfterValidator(check)


_Limit = Annotated[float | None, _within(0, _LARGEST_LIMIT, open_below=True)]


@dataclass(frozen=True)
class Limit:
    """What one measure has to be.

    Attributes:
        measure: Its name.
        bound: The number.
        most: Whether it may be at most that, or has to be at least that.
    """

    measure: str
    bound: float
    most: bool

    def holds(self, measured: float) -> bool:
        """Say whether a measured value is within it."""
        return measured <= self.bound if self.most else measured >= self.bound


class LoadLimits(BaseModel):
    """What a service has to hold under load; each goes by the name of the measure it bounds too.

    Attributes:
        max_p50_ms: Milliseconds within which half of the requests are answered.
        max_p95_ms: The same of 95 in 100.
        max_p99_ms: The same of 99 in 100.
        min_requests_per_second: Right answers per second, at least.
        max_failure_ratio: Requests without a right answer, of all, between 0 and 1.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    max_p50_ms: _Limit = Field(default=None, alias="p50_ms")
    max_p95_ms: _Limit = Field(default=None, alias="p95_ms")
    max_p99_ms: _Limit = Field(default=None, alias="p99_ms")
    min_requests_per_second: _Limit = Field(default=None, alias="requests_per_second")
    max_failure_ratio: Annotated[float, _within(0, 1)] = Field(default=0.0, alias="failure_ratio")

    def each(self) -> Iterator[Limit]:
        """Give the limits that are set."""
        for name, bound in self.model_dump().items():
            if bound is not None:
                direction, _, measure = name.partition("_")
                yield Limit(measure, bound, direction == "max")


class LoadOptions(BaseModel):
    """How a service is loaded. Users ask again as soon as they have an answer.

    Attributes:
        users: How many ask at the same time.
        ramp_seconds: How long it takes until all of them ask; what is measured then is shown apart.
        duration_seconds: How long all of them ask.
        max_requests_per_second: Requests per second that all of them make at most; 0 is no cap.
        max_requests: Ends the load earlier, after so many requests.
        payloads: `golden`, or a CSV, Parquet or JSONL file, or a folder of them: a path,
            `file://`, `s3://`, `minio://`, or `https://` for one file.
        rows_per_request: How many rows of such a table make a request.
        timeout_seconds: A request that has no answer by then has failed.
        limits: What has to hold.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    users: Annotated[int, between(1, MOST_USERS)] = 10
    ramp_seconds: Annotated[float, _within(0, 600)] = 5.0
    duration_seconds: Annotated[float, _within(1, LONGEST_SECONDS)] = 30.0
    max_requests_per_second: Annotated[float, _within(0, 100_000)] = 0.0
    max_requests: Annotated[int, between(1, MOST_REQUESTS)] = 100_000
    payloads: Annotated[str, BeforeValidator(quoted)] = GOLDEN
    rows_per_request: Annotated[int, between(1, _MOST_ROWS)] = 1
    timeout_seconds: Annotated[float, _within(0, 600, open_below=True)] = 30.0
    limits: LoadLimits = LoadLimits()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Read options as users and KFP write them; null stands for the default.

        Raises:
            InvalidInput: A name that is no option, or a value that cannot be.
        """
        for name in given:
            if name not in cls.model_fields:
                raise unknown_option(name, "the load test", cls.model_fields)
        limits = _settled(given.get("limits") or {})
        values = {name: plain(value) for name, value in given.items() if value is not None}
        try:
            return cls.model_validate({**values, "limits": limits})
        except ValidationError as error:
            problem = next(problems(cls, error))
            raise InvalidInput(f"{problem.sentence}.", hint=problem.hint) from None


def _settled(given: Any) -> Any:
    """Give limits under one name each.

    Raises:
        InvalidInput: There is no such limit, or it is given by both of its names.
    """
    if not isinstance(given, Mapping):
        return given
    names = {name: str(field.alias) for name, field in LoadLimits.model_fields.items()}
    settled: dict[str, Any] = {}
    for name, value in given.items():
        short = names.get(str(name), str(name))
        if short not in names.values():
            raise unknown_option(name, "the load test (limits)", names.values())
        if short in settled:
            raise InvalidInput(f"limits: {short} is given twice.", hint="Keep one of them.")
        if value is not None:
            settled[short] = plain(value)
    return settled
