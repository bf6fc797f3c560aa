"""Every failure that kfp-bento expects: what went wrong, why, and what to do next."""

from __future__ import annotations

import re
import sys
from types import TracebackType

# ECMA-48: control sequences, and operating system commands such as titles and links.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_UNSHOWN = re.compile(
    # Control characters but tab and line feed, what turns the direction of text around, line and
    # paragraph separators, lone surrogates, tags that cannot be seen.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def plain_text(text: str) -> str:
    """Give somebody else's text as it may be shown: nothing that steers a terminal or misleads."""
    return _UNSHOWN.sub(" ", _SEQUENCE.sub("", text))


class KfpBentoError(Exception):
    """The root of all expected failures; what it quotes is shown as `plain_text`.

    Args:
        message: What failed and why, in one or two sentences, without a trailing hint.
        hint: What the reader can do next; may be empty.

    Attributes:
        page: The page of docs/ that says more about failures of this kind; may be empty.
    """

    page = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = plain_text(message)
        self.hint = plain_text(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message


def tell_without_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print what ends a program; of an expected failure only what it says, as its last lines.

    A `sys.excepthook`. The line begins as a traceback's last one does: local runs find it by that.
    """
    if isinstance(error, KfpBentoError):
        print(f"{kind.__module__}.{kind.__qualname__}: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


class InvalidInput(KfpBentoError):
    """A parameter, file or URI that the user gave cannot be used."""


class StorageError(KfpBentoError):
    """An object cannot be listed, read, written or deleted."""

    page = "docs/storage.md"


class ModelError(KfpBentoError):
    """A model cannot be found, downloaded or understood."""

    page = "docs/models.md"


class BentoError(KfpBentoError):
    """A bento cannot be built or read."""

    page = "docs/bentos.md"


class BatchError(KfpBentoError):
    """A batch of rows cannot be predicted."""

    page = "docs/batch.md"


class ImageError(KfpBentoError):
    """An image cannot be assembled, read or written."""

    page = "docs/images.md"


class RegistryError(ImageError):
    """An OCI registry refused or failed a request.

    Args:
        message: What failed and why.
        hint: What the reader can do next.
        codes: The registry's own error codes, such as `MANIFEST_BLOB_UNKNOWN`.
        status: The HTTP status of its answer; 0 where there was none, or it was not that.
    """

    page = "docs/networks.md"

    def __init__(
        self, message: str, *, hint: str = "", codes: tuple[str, ...] = (), status: int = 0
    ) -> None:
        super().__init__(message, hint=hint)
        self.codes = codes
        self.status = status

    @property
    def refused(self) -> bool:
        """Whether the registry answered that it does not take this, and will not later either."""
        return 400 <= self.status <= 500 and self.status not in {401, 408, 429}


class DeploymentError(KfpBentoError):
    """A release cannot be rendered, applied or started."""

    page = "docs/operating.md"


class NotServed(DeploymentError):
    """What answers is not the release that was to be kept."""


class CheckError(KfpBentoError):
    """A check could not be carried out (a check that ran and failed is a report)."""

    page = "docs/operating.md"


class PromotionError(KfpBentoError):
    """A promotion was refused or did not take effect."""

    page = "docs/releases.md"


class PromotionRefused(PromotionError):
    """What was to be promoted must not be: trying again changes nothing."""


class LocalRunError(KfpBentoError):
    """A pipeline step failed while running on this machine."""

    page = "docs/first-hour.md"


class RunError(KfpBentoError):
    """A run on Kubeflow Pipelines cannot be submitted or followed."""

    page = "docs/kubeflow.md"


class RunUnavailable(RunError):
    """Kubeflow Pipelines or a registry does not answer right now: trying again may help."""


def in_a_pipeline(parameter: str, holds: str) -> str:
    """Say how a step of a pipeline is given what a person gives in variables and files.

    Args:
        parameter: The pipelines' parameter that names the Secret.
        holds: What the Secret holds.
    """
    return f"In a pipeline the Secret that {parameter} names holds {holds}."
