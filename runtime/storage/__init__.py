"""Storage behind small interfaces: directories never half-made, documents never trusted."""

from .directories import put_in_place, remove_tree, scratch_beside
from .documents import (
    JSON_LIMIT,
    YAML_LIMIT,
    open_plain_file,
    parse_json,
    parse_json_value,
    parse_yaml,
    read_small_file,
)

__all__ = [
    "JSON_LIMIT",
    "YAML_LIMIT",
    "open_plain_file",
    "parse_json",
    "parse_json_value",
    "parse_yaml",
    "put_in_place",
    "read_small_file",
    "remove_tree",
    "scratch_beside",
]
