"""What decides the answers to a batch and how they are written; part of each shard's identity."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS = ("csv", "parquet", "jsonl")
ALL = "*"
FAIL, ROW = "fail", "row"
ERROR_COLUMN = "error"


@dataclass(frozen=True)
class BatchOptions:
    """How a bento is asked, and what is written.

    Attributes:
        api: The API that answers: its name, its path, or the name of one of several models; ""
            where there is one only.
        inputs: The columns that the model gets, for models whose signature names none; () for all.
        keep: Columns of the input that stand before the predictions in the output; "*" for all.
        input_format: One of `FORMATS`; "" takes what the names of the files say.
        output_format: One of `FORMATS`; "" takes that of the input.
        on_error: "fail" ends the run at a row that is refused; "row" gives it an error instead.
        batch_rows: Rows of one request; 0 takes what suits the number of columns. Answers may
            depend on it in their last bits.
        params: What goes with each request: the model's parameters, or other arguments of the API.
    """

    api: str = ""
    inputs: tuple[str, ...] = ()
    keep: tuple[str, ...] = (ALL,)
    input_format: str = ""
    output_format: str = ""
    on_error: str = FAIL
    batch_rows: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidInput: The option is named.
        """
        for name in ("input_format", "output_format"):
            value = getattr(self, name)
            if value not in ("", *FORMATS):
                raise InvalidInput(f"{name} is {value!r}.", hint=f"Known are {', '.join(FORMATS)}.")
        if self.on_error not in (FAIL, ROW):
            raise InvalidInput(f"on_error is {self.on_error!r}.", hint="It is fail or row.")
        if self.batch_rows < 0:
            raise InvalidInput("batch_rows is below 0.", hint="0 chooses it by itself.")

    def to_dict(self) -> dict[str, Any]:
        """Give the options as JSON values."""
        return {**asdict(self), "inputs": list(self.inputs), "keep": list(self.keep)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BatchOptions:
        """Read what `to_dict` gave.

        Raises:
            TypeError: It is no such thing.
        """
        return cls(**{**data, "inputs": tuple(data["inputs"]), "keep": tuple(data["keep"])})
