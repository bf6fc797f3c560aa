"""Kubernetes resource quantities, and the requests and limits that are made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from kfp_bento.runtime.deployments.options.options import Settings
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.validation import Refused

# Used where a workload says nothing; yatai-deployment fills in the same, key by key
# (controllers/bentodeployment_controller.go, v1.1.21).
DEFAULT_RESOURCES: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "300m", "memory": "500Mi"},
    "limits": {"cpu": "500m", "memory": "1Gi"},
}

# Positive, without exponents, and with no more digits than Kubernetes counts in.
_QUANTITY = re.compile(r"[0-9]{1,18}(\.[0-9]{1,9})?(m|k|[MGTPE]|[KMGTPE]i)?")
_SMALLEST_MEMORY = Decimal(2**20)


def quantity_problem(text: str) -> str:
    """Say why a text is no quantity that is ever rendered; empty when it is one."""
    return "" if _QUANTITY.fullmatch(text) else "is no Kubernetes quantity"


def quantity_value(text: str) -> Decimal:
    """Give the number that a quantity stands for (cores, bytes, pieces)."""
    # The package takes a third of a second to import.
    from kubernetes.utils.quantity import parse_quantity

    return Decimal(parse_quantity(text))


def _quantity(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Refused(f": {value!r} is no quantity", "Write a string such as '500m' or '1Gi'.")
    if problem := quantity_problem(str(value)):
        raise Refused(
            f": {str(value)!r} {problem}",
            "Write a positive number with an optional unit: 500m, 2, 512Mi, 1Gi.",
        )
    return str(value)


def _more_than_nothing(text: str) -> str:
    if quantity_value(text) == 0:
        raise Refused(f": {text!r} is zero", "Leave it out for the default.")
    return text


def _cores(text: str) -> str:
    if not text[-1].isdigit() and text[-1] != "m":
        raise Refused(f": {text!r} has a unit that CPU does not have", "500m or 2")
    if quantity_value(text) * 1000 % 1:
        raise Refused(
            f": {text!r} is finer than a thousandth of a core, which Kubernetes refuses",
            "Write whole millicores, for example 250m.",
        )
    return text


def _bytes(text: str) -> str:
    if (value := quantity_value(text)) < _SMALLEST_MEMORY:
        raise Refused(
            f": {text!r} is {value.normalize():f} bytes, too little for any container",
            "'m' means thousandths and no unit means bytes; write Mi or Gi.",
        )
    return text


def _whole(text: str) -> str:
    if not text.isdigit():
        raise Refused(f": {text!r} is no whole number of GPUs", "Write '1'.")
    return text


Quantity = Annotated[str, BeforeValidator(_quantity)]
"""A quantity as the text that manifests want; numbers become text."""

_Amount = Annotated[Quantity, AfterValidator(_more_than_nothing)]


class _Amounts(Settings):
    cpu: Annotated[_Amount, AfterValidator(_cores)] = ""
    memory: Annotated[_Amount, AfterValidator(_bytes)] = ""
    gpu: Annotated[_Amount, AfterValidator(_whole)] = ""
    custom: dict[str, Quantity] = {}

    beyond = " GPUs go to limits.gpu, other device resources to limits.custom."


class _PodAmounts(_Amounts):
    ephemeral_storage: _Amount = Field(default="", alias="ephemeral-storage")


class Resources(Settings):
    """Requests and limits of a container, any part of them.

    Attributes:
        requests: `cpu`, `memory`; of `custom` only what is limited to the same.
        limits: The same, `gpu` for `nvidia.com/gpu`, `custom` for other devices by their names.
    """

    requests: _Amounts = _Amounts()
    limits: _Amounts = _Amounts()

    @model_validator(mode="after")
    def _check_devices(self) -> Self:
        if self.requests.gpu:
            raise Refused(
                ": Kubernetes and its operators take GPUs from the limits only",
                "Set limits.gpu; the request is the same number.",
                ".requests.gpu",
            )
        for name, request in self.requests.custom.items():
            limit = self.limits.custom.get(name)
            if limit is None or quantity_value(limit) != quantity_value(request):
                raise Refused(
                    f": a device resource needs the same limit, and limits.custom[{name}] is "
                    f"{limit or 'missing'}",
                    "Set it under limits.custom only.",
                    f".requests.custom[{name}]",
                )
        return self

    def sides(self) -> dict[str, dict[str, Any]]:
        """Give what is said of requests and limits."""
        said = {"requests": self.requests.given(), "limits": self.limits.given()}
        return {
            side: {key: value for key, value in amounts.items() if value != {}}
            for side, amounts in said.items()
        }


class PodResources(Resources):
    """The same for a pod that Kubernetes makes itself, and `ephemeral-storage`."""

    requests: _PodAmounts = _PodAmounts()
    limits: _PodAmounts = _PodAmounts()


def filled_resources(
    field: str, given: Resources, defaults: Mapping[str, Mapping[str, str]], filled_by: str
) -> dict[str, dict[str, Any]]:
    """Give requests and limits with defaults key by key, so that what is rendered will run.

    Args:
        field: Name of the option, for error messages.
        given: What the user said.
        defaults: `requests` and `limits`.
        filled_by: Whose defaults they are.

    Raises:
        InvalidInput: A limit is below its request, which one of them may be a default.
    """
    own = given.sides()
    sides = {side: {**defaults.get(side, {}), **own[side]} for side in own}
    for key in ("cpu", "memory", "ephemeral-storage"):
        request, limit = (sides[side].get(key) for side in ("requests", "limits"))
        if request is None or limit is None or quantity_value(limit) >= quantity_value(request):
            continue
        whose = {side: "" if key in own[side] else f" ({filled_by})" for side in own}
        raise InvalidInput(
            f"{field}.limits.{key}: {limit}{whose['limits']} is below {field}.requests.{key}: "
            f"{request}{whose['requests']}; Kubernetes refuses such a pod.",
            hint=f"Set both {field}.requests.{key} and {field}.limits.{key}.",
        )
    return sides


def pod_resources(
    field: str,
    given: Resources,
    defaults: Mapping[str, Mapping[str, str]],
    filled_by: str = "",
) -> dict[str, dict[str, str]]:
    """Give requests and limits in Kubernetes' own form.

    Args:
        field: Name of the option, for error messages.
        given: What the user said.
        defaults: Used when nothing is given at all.
        filled_by: The controller that fills in `defaults` key by key where something is given;
            "" where what is given stands alone.

    Raises:
        InvalidInput: As for `filled_resources`.
    """
    fill = filled_by or not any(given.sides().values())
    sides = filled_resources(field, given, defaults if fill else {}, filled_by or "the default")
    flat = {side: dict(_flat(amounts.items())) for side, amounts in sides.items()}
    return {side: amounts for side, amounts in flat.items() if amounts}


def _flat(amounts: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, str]]:
    for key, amount in amounts:
        if key == "custom":
            yield from amount.items()
        else:
            yield ("nvidia.com/gpu" if key == "gpu" else key), amount
