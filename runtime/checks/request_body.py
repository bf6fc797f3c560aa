"""The body of a check's request: the model's own input example, or the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import BentoError, CheckError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kfp_bento.runtime.models import ModelVersion


def model_request(model: ModelVersion, request: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give the JSON body to send: `request` where there is one, else made of the input example.

    Raises:
        CheckError: Neither is there.
    """
    from kfp_bento.runtime.bentos import prediction_request

    if request is not None:
        return dict(request)
    try:
        return prediction_request(model)
    except BentoError as error:
        raise CheckError(
            f"There is no request to check {model.uri} with: {error.message}",
            hint="Log the model with input_example=..., or give the check a request.",
        ) from error


def single_rows(body: Mapping[str, Any], rows: int, most: int) -> list[dict[str, Any]]:
    """Give one body per row, for the first `most` of the rows of `body["inputs"]`."""
    inputs = body["inputs"]
    return [
        {
            **body,
            "inputs": inputs[index : index + 1]
            if isinstance(inputs, list)
            else {name: item[index : index + 1] for name, item in inputs.items()},
        }
        for index in range(min(rows, most))
    ]
