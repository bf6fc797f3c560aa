"""Models with code of their own in one interpreter, which knows a module by its name only once."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.models import own_modules
from kfp_bento.runtime.requirements import distribution_name, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kfp_bento.runtime.models import ModelVersion

_WAY_OUT = (
    "Build a bento for each of them, or log one again with its modules in a package of another "
    "name (code_paths=['{name}_2'])."
)


def check_model_code(models: Sequence[ModelVersion]) -> None:
    """See that no model would run another model's code: whoever is loaded first decides.

    Raises:
        BentoError: Two models bring different modules of one name, or one brings a module that
            another one requires as a package.
    """
    if len(models) < 2:
        return
    pairs = [(model, own_modules(model.directory)) for model in models]
    for one, other in permutations(pairs, 2):
        _check_pair(*one, *other)


def _check_pair(
    one: ModelVersion, own: Mapping[str, str], other: ModelVersion, theirs: Mapping[str, str]
) -> None:
    required = {distribution_name(line) for line in other.requirements}
    for name, digest in own.items():
        if theirs.get(name) == digest:
            continue
        if name in theirs:
            what = f"both bring code called {name!r}, and it is not the same"
        elif distribution_name(name) in required:
            what = f"mean different code by {name!r}: the first brings it, the second requires it"
        else:
            continue
        raise BentoError(
            f"The models {shown(one.uri)} and {shown(other.uri)} {what}; in one service both "
            "would get whichever is loaded first.",
            hint=_WAY_OUT.format(name=name),
        )
