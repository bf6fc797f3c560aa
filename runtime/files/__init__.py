"""Directories never half-made, documents never trusted, records that are told from others'."""

from kfp_bento.runtime.files.caches import code_digest, keep_latest, own_folder
from kfp_bento.runtime.files.digests import copied_sha256, file_sha256
from kfp_bento.runtime.files.directories import (
    held,
    link_or_copy,
    put_in_place,
    remove_tree,
    scratch_beside,
    scratch_file,
    scratch_inside,
    write_whole,
)
from kfp_bento.runtime.files.documents import (
    JSON_LIMIT,
    YAML_LIMIT,
    open_plain_file,
    parse_json,
    parse_json_value,
    parse_toml,
    parse_yaml,
    read_small_file,
    reading,
    yaml_lines,
)
from kfp_bento.runtime.files.records import load_record, save_record
from kfp_bento.runtime.files.seals import (
    KEY_VARIABLE,
    is_sealed,
    open_record,
    own_key,
    record_digest,
    seal,
    sealed_record,
    shared_key,
)
from kfp_bento.runtime.files.streams import ChunkReader

__all__ = [
    "JSON_LIMIT",
    "KEY_VARIABLE",
    "YAML_LIMIT",
    "ChunkReader",
    "code_digest",
    "copied_sha256",
    "file_sha256",
    "held",
    "is_sealed",
    "keep_latest",
    "link_or_copy",
    "load_record",
    "open_plain_file",
    "open_record",
    "own_folder",
    "own_key",
    "parse_json",
    "parse_json_value",
    "parse_toml",
    "parse_yaml",
    "put_in_place",
    "read_small_file",
    "reading",
    "record_digest",
    "remove_tree",
    "save_record",
    "scratch_beside",
    "scratch_file",
    "scratch_inside",
    "seal",
    "sealed_record",
    "shared_key",
    "write_whole",
    "yaml_lines",
]
