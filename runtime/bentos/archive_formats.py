"""The forms in which a bento travels: which there are, and which one a name asks for."""

from __future__ import annotations

from kfp_bento.runtime.errors import InvalidInput

DIRECTORY = "directory"
FORMATS = ("bento", "tar", "tar.gz", "tar.xz", "tar.bz2", "zip", DIRECTORY)
"""`bento` is a tar.xz, as `bentoml export` writes it."""

_SUFFIXES = {
    ".bento": "bento",
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".gz": "tar.gz",
    ".tar.xz": "tar.xz",
    ".txz": "tar.xz",
    ".xz": "tar.xz",
    ".tar.bz2": "tar.bz2",
    ".tbz2": "tar.bz2",
    ".bz2": "tar.bz2",
    ".zip": "zip",
}


def said_format(name: str) -> str:
    """Give the format that the end of a name says, or ""."""
    return next((known for suffix, known in _SUFFIXES.items() if name.endswith(suffix)), "")


def target_of(uri: str, archive_format: str, file_name: str) -> tuple[str, str]:
    """Settle where an archive goes and what it is, as `bentoml export` does.

    Args:
        uri: What the user gave: an object, or with a slash at its end a folder for one.
        archive_format: One of `FORMATS`, or "" for what the name says, else `bento`.
        file_name: The name for a folder, without a suffix.

    Returns:
        The whole address, and the format.

    Raises:
        InvalidInput: There is no such format.
    """
    if archive_format and archive_format not in FORMATS:
        raise InvalidInput(
            f"'{archive_format}' is no format of an archive.", hint=f"Known: {', '.join(FORMATS)}."
        )
    said = said_format(uri)
    chosen = archive_format or said or "bento"
    if chosen == DIRECTORY:
        return uri, chosen
    if uri.endswith("/"):
        return f"{uri}{file_name}.{chosen}", chosen
    # A name that says nothing gets a suffix; one that says something else was meant.
    return (uri if said else f"{uri}.{chosen}"), chosen
