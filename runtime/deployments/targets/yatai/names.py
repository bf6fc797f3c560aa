"""The names that Yatai gives its objects."""

from __future__ import annotations

import hashlib

from kfp_bento.runtime.deployments.options.names import kebab


def bento_resource_name(tag: str) -> str:
    """Give the name of the Bento resource for a tag `name:version`.

    The rule is Yatai's own (yatai-deployment, `bentodeployment_conversion.go`): kebab case, `--`
    between the two parts, and a hash of the tag when that is longer than 63 characters.
    """
    name, _, version = tag.partition(":")
    made = f"{kebab(name)}--{kebab(version)}"
    if len(made) <= 63 and not made.startswith("-") and not made.endswith("-"):
        return made
    return "bento-" + hashlib.md5(tag.encode(), usedforsecurity=False).hexdigest()
