"""Why dependencies cannot be locked: what uv says, as a sentence and a way out."""

from __future__ import annotations

from collections.abc import Iterator

from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.programs import without_wheel

_DRAWING = " \t\u00d7\u2570\u2500\u25b6\u2502\u251c"
"""The lines and arrows that uv draws around its sentences."""

_UNTRUSTED = (
    "Name the certificates of the authority that vouches for the package index: in SSL_CERT_FILE, "
    "or for steps on Kubeflow as ca.crt in the ConfigMap that runtime_settings names."
)


def not_locked(output: str, where: str, way_out: str) -> BentoError:
    """Give the error for a lock that uv could not make, in one sentence.

    Args:
        output: What uv said.
        where: What the lock was for, such as "Python 3.11 on x86_64-manylinux_2_28".
        way_out: The hint where uv has none.
    """
    reasons, hints = [], []
    for line in output.splitlines():
        text = line.lstrip(_DRAWING).removeprefix("error: ").removeprefix("cause: ")
        if text.startswith("hint: "):
            hints.append(text.removeprefix("hint: "))
        elif text and not text.startswith(("warning:", "No solution found")):
            reasons.append(text)
    reason = " ".join(reasons) or "uv gives no reason"
    if len(reason) > 800:
        reason = reason[:800].rpartition(" ")[0] + " …"
    return BentoError(
        f"The dependencies cannot be locked for {where}: {reason.rstrip('.')}.",
        hint=_UNTRUSTED
        if "invalid peer certificate" in output
        else " ".join([*_to_be_built(output), *hints, way_out]),
    )


def _to_be_built(output: str) -> Iterator[str]:
    if package := without_wheel(output):
        yield (
            f"Build a wheel of {package} once (`pip wheel --no-deps`) and publish it to your "
            "package index, or require a version that has one."
        )
