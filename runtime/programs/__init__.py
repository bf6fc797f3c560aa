"""Foreign programs, started in a clean room: what they see, how long, and how much they may say."""

from kfp_bento.runtime.programs.clean_room import (
    Finished,
    clean_environment,
    cleaned,
    interrupt_group,
    run_program,
    start_program,
    stop_group,
)
from kfp_bento.runtime.programs.confinement import (
    CONFINEMENT_VARIABLE,
    VARIABLES_VARIABLE,
    code_variables,
    confined,
    confinement_hint,
    memory_for_code,
)
from kfp_bento.runtime.programs.environment import BASIC, CACHES, COMPUTING, NETWORK
from kfp_bento.runtime.programs.uv import UV, UV_DOES_NOT_ANSWER, find_uv, run_uv

__all__ = [
    "BASIC",
    "CACHES",
    "COMPUTING",
    "CONFINEMENT_VARIABLE",
    "NETWORK",
    "UV",
    "UV_DOES_NOT_ANSWER",
    "VARIABLES_VARIABLE",
    "Finished",
    "clean_environment",
    "cleaned",
    "code_variables",
    "confined",
    "confinement_hint",
    "find_uv",
    "interrupt_group",
    "memory_for_code",
    "run_program",
    "run_uv",
    "start_program",
    "stop_group",
]
