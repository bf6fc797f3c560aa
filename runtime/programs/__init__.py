"""Foreign programs, started in a clean room: what they see, how long, and how much they may say."""

from kfp_bento.runtime.programs.clean_room import (
    Finished,
    clean_environment,
    cleaned,
    ended_within,
    interrupt_group,
    names_secret,
    run_program,
    start_program,
    without_signatures,
)
from kfp_bento.runtime.programs.confinement import (
    code_variables,
    confined,
    confinement_hint,
    hides_credentials,
    keeps_from_network,
    memory_for_code,
)
from kfp_bento.runtime.programs.endings import MEMORY_HINT, how_ended, was_killed
from kfp_bento.runtime.programs.environment import COMPUTING, NETWORK
from kfp_bento.runtime.programs.uv import (
    UV_DOES_NOT_ANSWER,
    account_for,
    configured_indexes,
    downloads_kept_in,
    find_uv,
    keeps_downloads,
    run_uv,
    without_wheel,
)

__all__ = [
    "COMPUTING",
    "MEMORY_HINT",
    "NETWORK",
    "UV_DOES_NOT_ANSWER",
    "Finished",
    "account_for",
    "clean_environment",
    "cleaned",
    "code_variables",
    "configured_indexes",
    "confined",
    "confinement_hint",
    "downloads_kept_in",
    "ended_within",
    "find_uv",
    "hides_credentials",
    "how_ended",
    "interrupt_group",
    "keeps_downloads",
    "keeps_from_network",
    "memory_for_code",
    "names_secret",
    "run_program",
    "run_uv",
    "start_program",
    "was_killed",
    "without_signatures",
    "without_wheel",
]
