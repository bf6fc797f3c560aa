"""Releases out of a component's parameters and of its task's own settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.targets.target import Target
from kfp_bento.runtime.deployments.targets.targets import target_of
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.deployments.targets.release import Release

_GPUS = ("nvidia.com/gpu",)
_PLAIN = ("cpu", "memory", "ephemeral-storage")
# Where a pod's placement goes, by target: an option of its own or a key of the extra pod spec.
_PLACEMENT = {
    "node_selector": "nodeSelector",
    "tolerations": "tolerations",
    "affinity": "affinity",
}


def render_for_task(
    target: str,
    image: str,
    bento: Bento | None,
    options: Mapping[str, Any],
    *,
    more: Mapping[str, Any],
    task_config: Any = None,
) -> Release:
    """Render a release by all places where a task of a pipeline may say its options.

    Args:
        target: One of `TARGETS`.
        image: See `Target.render`, as for the bento.
        bento: The bento inside.
        options: The parameters that a component names; empty ones say nothing.
        more: The parameters that it does not name.
        task_config: `dsl.TaskConfig` of the task, or None; resources, tolerations, node selector
            and affinity go to the pods where the options say nothing.

    Raises:
        InvalidInput: No such target; an option is given in both places, or cannot be honoured.
    """
    chosen = {key: value for key, value in options.items() if value not in ("", None, {}, [])}
    for key, value in more.items():
        if key in chosen:
            raise InvalidInput(
                f"options.{key}: there is a parameter {key} of its own.", hint="Give it there."
            )
        chosen[key] = value
    kind = target_of(target)
    for key, value in _of_task(kind, task_config).items():
        if key == "extra_pod_spec" and isinstance(chosen.get(key), Mapping):
            chosen[key] = {**value, **chosen[key]}
        else:
            chosen.setdefault(key, value)
    return kind.render(image, bento, chosen)


def renderer_for_task(
    target: str,
    image: str,
    bento: Bento | None,
    options: Mapping[str, Any],
    *,
    more: Mapping[str, Any],
) -> Callable[[Mapping[str, Any]], Release]:
    """Give what renders a release as `render_for_task` does, with further options each time."""

    def render(further: Mapping[str, Any]) -> Release:
        return render_for_task(target, image, bento, options, more={**more, **further})

    return render


def _of_task(target: Target, task_config: Any) -> dict[str, Any]:
    if task_config is None:
        return {}
    found: dict[str, Any] = {}
    if resources := _resources(getattr(task_config, "resources", None) or {}):
        found["resources"] = resources
    placement = {
        key: given for key in _PLACEMENT if (given := getattr(task_config, key, None) or None)
    }
    if placement and "node_selector" not in target.options_type.model_fields:
        return {**found, "extra_pod_spec": {_PLACEMENT[key]: placement[key] for key in placement}}
    return {**found, **placement}


def _resources(given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the resources of a pod in the form that all targets take."""
    sides: dict[str, Any] = {}
    for side in ("requests", "limits"):
        amounts: dict[str, Any] = {}
        for name, amount in (given.get(side) or {}).items():
            if name in _PLAIN:
                amounts[name] = amount
            elif name in _GPUS and side == "limits":
                amounts["gpu"] = amount
            elif side == "limits":
                amounts.setdefault("custom", {})[name] = amount
        if amounts:
            sides[side] = amounts
    return sides
