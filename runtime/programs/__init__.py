"""Foreign programs, started in a clean room: what they see, how long, and how much they may say."""

from .clean_room import (
    Finished,
    clean_environment,
    cleaned,
    interrupt_group,
    run_program,
    start_program,
    stop_group,
)
from .environment import BASIC, COMPUTING, NETWORK
from .uv import UV, UV_DOES_NOT_ANSWER, find_uv, run_uv

__all__ = [
    "BASIC",
    "COMPUTING",
    "NETWORK",
    "UV",
    "UV_DOES_NOT_ANSWER",
    "Finished",
    "clean_environment",
    "cleaned",
    "find_uv",
    "interrupt_group",
    "run_program",
    "run_uv",
    "start_program",
    "stop_group",
]
