"""Text of models and servers, checked where it comes in."""

from __future__ import annotations

from typing import Any

from kfp_bento.runtime.errors import ModelError, plain_text

LONGEST_TEXT = 4_096


def checked_text(value: Any, what: str, *, longest: int = LONGEST_TEXT) -> str:
    """Give a text that can be shown as it is: no line breaks, nothing that steers a terminal.

    Args:
        value: What stands where a text should be; numbers are taken as well.
        what: What it is, for the message.
        longest: Most characters.

    Raises:
        ModelError: It is no such text.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _unusable(what, f"is {type(value).__name__}, not text")
    if len(value) > longest:
        raise _unusable(what, f"has more than {longest} characters")
    if plain_text(value) != value or any(letter in value for letter in "\n\t"):
        raise _unusable(what, f"has control characters: {value[:60]!a}")
    return value


def has_control_characters(text: str) -> bool:
    """Tell whether a file's name would do more than be shown; bytes that are no UTF-8 are fine."""
    known = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return plain_text(known) != known or any(letter in text for letter in "\n\t")


def shown_text(value: Any, *, longest: int = 300) -> str:
    """Give what somebody else said as one line for a message."""
    line = " ".join(plain_text(str(value)).split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def _unusable(what: str, why: str) -> ModelError:
    return ModelError(
        f"{what} {why}.",
        hint="Do not use this model unless you know who made it; else log it again.",
    )
