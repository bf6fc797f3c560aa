"""Requirement lines, of whoever wrote them, read by one policy: names and versions, or refused."""

from kfp_bento.runtime.requirements.addresses import (
    NAMES_ONLY,
    Address,
    AllowedSources,
    Repository,
    allowed_sources,
    parse_repository,
)
from kfp_bento.runtime.requirements.direct_wheels import (
    DirectWheel,
    check_metadata,
    connection_pool,
    fetch_wheel,
)
from kfp_bento.runtime.requirements.lines import (
    SEPARATORS,
    SOURCE_SUFFIXES,
    VERSION_CONTROL,
    Reading,
    distribution_name,
    joined_lines,
    parse_requirement,
    read_requirements,
    rendered,
    shown,
)
from kfp_bento.runtime.requirements.repositories import build_wheel, clone

__all__ = [
    "NAMES_ONLY",
    "SEPARATORS",
    "SOURCE_SUFFIXES",
    "VERSION_CONTROL",
    "Address",
    "AllowedSources",
    "DirectWheel",
    "Reading",
    "Repository",
    "allowed_sources",
    "build_wheel",
    "check_metadata",
    "clone",
    "connection_pool",
    "distribution_name",
    "fetch_wheel",
    "joined_lines",
    "parse_repository",
    "parse_requirement",
    "read_requirements",
    "rendered",
    "shown",
]
