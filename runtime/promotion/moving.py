"""Moving an alias on several models: on all, or on none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import KfpBentoError, PromotionError
from kfp_bento.runtime.models import speaking_to
from kfp_bento.runtime.promotion.history import last_known_good_tag
from kfp_bento.runtime.promotion.standing import alias_holder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfp_bento.runtime.promotion.standing import Standing


def move_together(client: Any, standings: Sequence[Standing], alias: str, where: Any) -> None:
    """Set an alias to the versions of some models; if one fails, put the others back.

    Args:
        client: An `MlflowClient`.
        standings: The models, and how things stood when that was allowed.
        alias: The alias.
        where: The tracking server, as `choose_tracking` gave it.

    Raises:
        PromotionError: The registry refused or failed; says which aliases were put back, and
            which could not be.
    """
    begun: list[Standing] = []
    try:
        with speaking_to(where, error=PromotionError):
            for standing in standings:
                begun.append(standing)
                _move(client, standing, alias)
            for standing in standings:
                _require_held(client, standing, alias)
    except KfpBentoError as failure:
        raise _told(failure, _put_back(client, begun, alias), alias) from failure
    except BaseException:  # an interrupt: nothing half-made stays behind
        _put_back(client, begun, alias)
        raise


def _move(client: Any, standing: Standing, alias: str) -> None:
    model = standing.model
    if standing.current:
        # Before the alias: until it moves, its holder is what one would roll back to.
        client.set_registered_model_tag(model.name, last_known_good_tag(alias), standing.current)
    client.set_registered_model_alias(model.name, alias, model.version)


def _require_held(client: Any, standing: Standing, alias: str) -> None:
    model = standing.model
    current = alias_holder(client, model.name, alias)
    if current != model.version:
        raise PromotionError(
            f"The alias {alias!r} of {model.name!r} was set to version {model.version} but reads "
            f"back as {f'version {current}' if current else 'no version'}.",
            hint="Somebody else is moving it at the same time; find out who, then run again.",
        )


def _put_back(client: Any, standings: Sequence[Standing], alias: str) -> dict[str, bool]:
    """Put aliases back that we moved; give for each registered model whether that was done.

    An alias that somebody else has moved meanwhile, or that never moved, is left as it is and not
    mentioned.
    """
    done: dict[str, bool] = {}
    for standing in reversed(standings):
        name = standing.model.name
        try:
            if alias_holder(client, name, alias) == standing.model.version:
                _restore_alias(client, standing, alias)
                done[name] = True
            _restore_last_known_good(client, standing, alias)
        except Exception:  # said of each model, whatever the registry answers for one
            done[name] = False
    return done


def _restore_alias(client: Any, standing: Standing, alias: str) -> None:
    if standing.current:
        client.set_registered_model_alias(standing.model.name, alias, standing.current)
    else:
        client.delete_registered_model_alias(standing.model.name, alias)


def _restore_last_known_good(client: Any, standing: Standing, alias: str) -> None:
    name, tag = standing.model.name, last_known_good_tag(alias)
    if not standing.current or standing.current == standing.last_known_good:
        return
    if standing.last_known_good:
        client.set_registered_model_tag(name, tag, standing.last_known_good)
    else:
        client.delete_registered_model_tag(name, tag)


def _told(failure: KfpBentoError, put_back: dict[str, bool], alias: str) -> KfpBentoError:
    """Add to what failed what became of the other aliases."""
    back = [repr(name) for name, done in put_back.items() if done]
    stuck = [repr(name) for name, done in put_back.items() if not done]
    message, hint = failure.message, failure.hint
    if back:
        message += f" The alias {alias!r} was put back on {', '.join(back)}."
    if stuck:
        message += f" Where it is on {', '.join(stuck)} now could not be settled."
        hint = "Run the promotion again once the registry answers: it completes what was begun."
    return PromotionError(message, hint=hint)
