"""Stop two: models, a service and a lock become one `Bento` in a directory."""

from kfp_bento.runtime.bentos.bento import (
    Bento,
    BentoModel,
    changed_models,
    hand_on,
    hand_on_refusal,
    is_whole,
    load_bento,
    load_given_bento,
)
from kfp_bento.runtime.bentos.bento_file import BentoFile, read_bento_file
from kfp_bento.runtime.bentos.build import build_bento, model_paths
from kfp_bento.runtime.bentos.description import BentoDescription, describe_bento
from kfp_bento.runtime.bentos.exchange import (
    ImportOptions,
    export_bento,
    import_bento,
    require_exported,
)
from kfp_bento.runtime.bentos.folder_store import golden_file
from kfp_bento.runtime.bentos.listening import WHERE_EXPECTED, listening_of, require_found
from kfp_bento.runtime.bentos.lock import bento_indexes
from kfp_bento.runtime.bentos.options import BentoOptions
from kfp_bento.runtime.bentos.requests import prediction_request
from kfp_bento.runtime.bentos.service_location import given_service, is_fixed
from kfp_bento.runtime.bentos.service_source import (
    can_require_token,
    is_generated,
    sample_request,
    spoken_protocols,
)
from kfp_bento.runtime.bentos.store import (
    chosen_bentos,
    expendable_bentos,
    newest_first,
    open_store,
    opened_bento,
    require_unused,
)
from kfp_bento.runtime.bentos.stored_bento import StoredBento
from kfp_bento.runtime.bentos.wishes import (
    DEBIAN_PACKAGE,
    default_packages,
    is_default_command,
    unfulfilled_wishes,
    wanted_packages,
)

__all__ = [
    "DEBIAN_PACKAGE",
    "WHERE_EXPECTED",
    "Bento",
    "BentoDescription",
    "BentoFile",
    "BentoModel",
    "BentoOptions",
    "ImportOptions",
    "StoredBento",
    "bento_indexes",
    "build_bento",
    "can_require_token",
    "changed_models",
    "chosen_bentos",
    "default_packages",
    "describe_bento",
    "expendable_bentos",
    "export_bento",
    "given_service",
    "golden_file",
    "hand_on",
    "hand_on_refusal",
    "import_bento",
    "is_default_command",
    "is_fixed",
    "is_generated",
    "is_whole",
    "listening_of",
    "load_bento",
    "load_given_bento",
    "model_paths",
    "newest_first",
    "open_store",
    "opened_bento",
    "prediction_request",
    "read_bento_file",
    "require_exported",
    "require_found",
    "require_unused",
    "sample_request",
    "spoken_protocols",
    "unfulfilled_wishes",
    "wanted_packages",
]
