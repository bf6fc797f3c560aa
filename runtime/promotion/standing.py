"""How things stand in the registry with a model and an alias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import PromotionError, PromotionRefused
from kfp_bento.runtime.models import (
    missing_as,
    read_registered_model,
    read_registered_version,
    without_password,
)
from kfp_bento.runtime.promotion.history import last_known_good_tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kfp_bento.runtime.models import ModelVersion, RegisteredModel


@dataclass(frozen=True)
class Standing:
    """A model, and how things stand before anything is changed.

    Attributes:
        model: The version, as it was pulled.
        current: The version that holds the alias, or "".
        last_known_good: The version that is recorded as the one to go back to, or "".
        tags: The tags of the model version.
    """

    model: ModelVersion
    current: str
    last_known_good: str
    tags: Mapping[str, str]

    @property
    def is_promoted(self) -> bool:
        """Whether the version holds the alias already."""
        return self.current == self.model.version


def read_standing(client: Any, model: ModelVersion, alias: str, where: str) -> Standing:
    """Ask the registry how things stand with a model.

    Args:
        client: An `MlflowClient`.
        model: The version, as it was pulled.
        alias: The alias.
        where: The server, for messages.

    Raises:
        PromotionError: The model or version is gone, or is another one under the same name.
    """
    registered = _registered(client, model.name)
    return Standing(
        model,
        current=registered.aliases.get(alias, ""),
        last_known_good=registered.tags.get(last_known_good_tag(alias), ""),
        tags=_tags(client, model, where),
    )


def alias_holder(client: Any, name: str, alias: str) -> str:
    """Give the version of a registered model that holds an alias, or ""."""
    return _registered(client, name).aliases.get(alias, "")


def _registered(client: Any, name: str) -> RegisteredModel:
    with missing_as(
        f"There is no registered model {name!r}.",
        hint="Promote on the tracking server that the model was pulled from.",
        error=PromotionError,
    ):
        answer = client.get_registered_model(name)
    return read_registered_model(answer)


def _tags(client: Any, model: ModelVersion, where: str) -> dict[str, str]:
    with missing_as(
        f"Version {model.version} of {model.name!r} does not exist any more.",
        hint="Pull and check a version that does.",
        error=PromotionError,
    ):
        answer = client.get_model_version(model.name, model.version)
    found = read_registered_version(answer)
    source = without_password(found.source)
    if source != model.source:
        raise PromotionRefused(
            f"Version {model.version} of {model.name!r} on {where} is another model than the one "
            f"that was checked: its source is {source}, not {model.source}.",
            hint="Promote on the tracking server that the model was pulled from.",
        )
    return found.tags
