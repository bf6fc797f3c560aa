"""Kubernetes resource quantities, and the requests and limits that are made of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

from kfp_bento.runtime.deployments.options.options import mapping
from kfp_bento.runtime.errors import InvalidInput

# What yatai-deployment fills in, key by key, where a resource says nothing
# (controllers/bentodeployment_controller.go, v1.1.21).
CONTROLLER_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "300m", "memory": "500Mi"},
    "limits": {"cpu": "500m", "memory": "1Gi"},
}

_SUFFIXES = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|[MGTPE]|[KMGTPE]i)?")
_SMALLEST_MEMORY = Decimal(2**20)
_YATAI_KEYS = frozenset({"cpu", "memory", "gpu", "custom"})
_POD_KEYS = _YATAI_KEYS | {"ephemeral-storage"}


def quantity_text(field: str, value: Any) -> str:
    """Give a quantity as the string that the CRD wants; numbers become text.

    Raises:
        InvalidInput: The value is neither a number nor a string that Kubernetes can read.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(
            f"{field}: {value!r} is no quantity.",
            hint="Write a string, for example '500m' or '1Gi'.",
        )
    text = str(value)
    if not _QUANTITY.fullmatch(text):
        raise InvalidInput(
            f"{field}: {text!r} is no Kubernetes quantity.",
            hint="Write a positive number with an optional unit: 500m, 2, 512Mi, 1Gi.",
        )
    return text


def quantity_value(text: str) -> Decimal:
    """Give the number that a checked quantity stands for (cores, bytes, pieces)."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{text!r} is no Kubernetes quantity.")
    return Decimal(match[1]) * _SUFFIXES[match[2] or ""]


def container_resources(field: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give complete requests and limits, all strings, as the controller will use them.

    Args:
        field: Name of the parameter, for error messages.
        given: `{"requests": {"cpu", "memory"}, "limits": {"cpu", "memory", "gpu", "custom"}}`,
            any part of it; the controller's defaults fill the rest, so that what is rendered
            is what will run.

    Raises:
        InvalidInput: An unknown key, a bad quantity, a limit below its request, or
            `requests.gpu`, which the controller ignores.
    """
    given = given or {}
    _refuse_unknown(field, given, {"requests", "limits"})
    sides = {
        side: {**defaults, **_one_side(f"{field}.{side}", given.get(side) or {})}
        for side, defaults in CONTROLLER_DEFAULTS.items()
    }
    _check_gpu(field, sides)
    for key in ("cpu", "memory"):
        _check_limit(field, key, sides, given)
    _check_custom(field, sides)
    return sides


def pod_resources(
    field: str,
    given: Mapping[str, Any] | None,
    defaults: Mapping[str, Mapping[str, str]],
    *,
    filled_by: str = "",
) -> dict[str, dict[str, str]]:
    """Give requests and limits in Kubernetes' own form, all strings.

    Args:
        field: Name of the parameter, for error messages.
        given: As for `container_resources`, and `ephemeral-storage`; `gpu` stands for
            `nvidia.com/gpu`, `custom` holds other devices by their full names.
        defaults: Used when nothing is given at all.
        filled_by: The controller that fills in `defaults` key by key where something is given;
            "" where what is given stands alone.

    Raises:
        InvalidInput: As for `container_resources`.
    """
    given = given or {}
    _refuse_unknown(field, given, {"requests", "limits"})
    own = {
        side: _one_side(f"{field}.{side}", given.get(side) or {}, _POD_KEYS)
        for side in ("requests", "limits")
    }
    if "gpu" in own["requests"]:
        raise InvalidInput(
            f"{field}.requests.gpu: Kubernetes takes GPUs from the limits only.",
            hint=f"Set {field}.limits.gpu; the request is the same number.",
        )
    _check_custom(field, own)
    fill = filled_by or not any(own.values())
    sides = {side: {**(defaults[side] if fill else {}), **own[side]} for side in own}
    for key in ("cpu", "memory", "ephemeral-storage"):
        if key in sides["requests"] and key in sides["limits"]:
            _check_limit(field, key, sides, given, filled_by or "the default")
    flat = {side: _flat(block) for side, block in sides.items()}
    return {side: block for side, block in flat.items() if block}


def _flat(side: Mapping[str, Any]) -> dict[str, str]:
    plain = {key: value for key, value in side.items() if key not in ("gpu", "custom")}
    if "gpu" in side:
        plain["nvidia.com/gpu"] = side["gpu"]
    return {**plain, **side.get("custom", {})}


def _one_side(
    field: str, given: Mapping[str, Any], known: frozenset[str] = _YATAI_KEYS
) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InvalidInput(
            f"{field}: {given!r} is no mapping.", hint="Write {'cpu': '500m', 'memory': '1Gi'}."
        )
    _refuse_unknown(field, given, known)
    side: dict[str, Any] = {}
    for key, value in given.items():
        if key == "custom":
            side[key] = {
                name: quantity_text(f"{field}.custom[{name}]", amount)
                for name, amount in mapping(f"{field}.custom", value or {}).items()
            }
            continue
        side[key] = quantity_text(f"{field}.{key}", value)
        _check_magnitude(f"{field}.{key}", key, side[key])
    return {key: value for key, value in side.items() if value != {}}


def _refuse_unknown(field: str, given: Any, known: Collection[str]) -> None:
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{field}: {given!r} is no mapping.", hint=f"Keys: {sorted(known)}.")
    for key in given:
        if key not in known:
            extra = (
                " GPUs go to limits.gpu, other device resources to limits.custom."
                if "/" in str(key) or "gpu" in str(key).lower()
                else ""
            )
            raise InvalidInput(
                f"{field}.{key}: no such setting.",
                hint=f"Known: {', '.join(sorted(known))}.{extra}",
            )


def _check_magnitude(field: str, key: str, text: str) -> None:
    value = quantity_value(text)
    if value == 0:
        raise InvalidInput(f"{field}: {text!r} is zero.", hint="Leave it out for the default.")
    if key == "cpu" and (not text[-1].isdigit() and text[-1] != "m"):
        raise InvalidInput(
            f"{field}: {text!r} has a unit that CPU does not have.", hint="500m or 2"
        )
    if key == "cpu" and value * 1000 % 1:
        raise InvalidInput(
            f"{field}: {text!r} is finer than a thousandth of a core, which Kubernetes refuses.",
            hint="Write whole millicores, for example 250m.",
        )
    if key == "memory" and value < _SMALLEST_MEMORY:
        raise InvalidInput(
            f"{field}: {text!r} is {value.normalize():f} bytes, too little for any container.",
            hint="'m' means thousandths and no unit means bytes; write Mi or Gi.",
        )
    if key == "gpu" and not text.isdigit():
        raise InvalidInput(f"{field}: {text!r} is no whole number of GPUs.", hint="Write '1'.")


def _check_gpu(field: str, sides: Mapping[str, Mapping[str, Any]]) -> None:
    if "gpu" in sides["requests"]:
        raise InvalidInput(
            f"{field}.requests.gpu: the operator ignores it; it reads limits.gpu only.",
            hint=f"Set {field}.limits.gpu; Kubernetes requests as many GPUs as the limit says.",
        )


def _check_limit(
    field: str,
    key: str,
    sides: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, Any],
    filled_by: str = "the operator's default",
) -> None:
    request, limit = sides["requests"][key], sides["limits"][key]
    if quantity_value(limit) >= quantity_value(request):
        return
    origin = {side: "" if key in (given.get(side) or {}) else f" ({filled_by})" for side in sides}
    raise InvalidInput(
        f"{field}.limits.{key}: {limit}{origin['limits']} is below {field}.requests.{key}: "
        f"{request}{origin['requests']}; Kubernetes refuses such a pod.",
        hint=f"Set both {field}.requests.{key} and {field}.limits.{key}.",
    )


def _check_custom(field: str, sides: Mapping[str, Mapping[str, Any]]) -> None:
    limits = sides["limits"].get("custom", {})
    for name, request in sides["requests"].get("custom", {}).items():
        if name not in limits or quantity_value(limits[name]) != quantity_value(request):
            raise InvalidInput(
                f"{field}.requests.custom[{name}]: a device resource needs the same limit, "
                f"and {field}.limits.custom[{name}] is {limits.get(name, 'missing')}.",
                hint="Set it under limits.custom only.",
            )
