"""Stop two: models, a service and a lock become one `Bento` in a directory."""

from kfp_bento.runtime.bentos.bento import Bento, BentoModel, load_bento
from kfp_bento.runtime.bentos.build import build_bento
from kfp_bento.runtime.bentos.requests import prediction_request

__all__ = ["Bento", "BentoModel", "build_bento", "load_bento", "prediction_request"]
