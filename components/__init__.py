"""Pipeline components: one interface each, the logic is in kfp_bento.runtime."""

from kfp_bento.components.await_approval import await_approval
from kfp_bento.components.build_bento import build_bento
from kfp_bento.components.build_image import build_image
from kfp_bento.components.check_and_promote import check_and_promote
from kfp_bento.components.check_contract import check_contract
from kfp_bento.components.check_metrics import check_metrics
from kfp_bento.components.check_release import check_release
from kfp_bento.components.collect_batch import collect_batch
from kfp_bento.components.confirm_release import confirm_release
from kfp_bento.components.deploy_bento import deploy_bento
from kfp_bento.components.describe_data import describe_data
from kfp_bento.components.detect_drift import detect_drift
from kfp_bento.components.export_bento import export_bento
from kfp_bento.components.import_bento import import_bento
from kfp_bento.components.load_test import load_test
from kfp_bento.components.move_release import move_release
from kfp_bento.components.package_model import package_model
from kfp_bento.components.plan_batch import plan_batch
from kfp_bento.components.predict_batch import predict_batch
from kfp_bento.components.predict_shard import predict_shard
from kfp_bento.components.promote_model import promote_model
from kfp_bento.components.pull_model import pull_model
from kfp_bento.components.require_passed import require_passed
from kfp_bento.components.resolve_models import resolve_models
from kfp_bento.components.roll_back import roll_back
from kfp_bento.components.scan_model import scan_model
from kfp_bento.components.settle_run import settle_run
from kfp_bento.components.shift_requests import shift_requests
from kfp_bento.components.train_lightgbm import train_lightgbm
from kfp_bento.components.train_sklearn import train_sklearn
from kfp_bento.components.train_wine_model import train_wine_model
from kfp_bento.components.train_xgboost import train_xgboost

__all__ = [
    "await_approval",
    "build_bento",
    "build_image",
    "check_and_promote",
    "check_contract",
    "check_metrics",
    "check_release",
    "collect_batch",
    "confirm_release",
    "deploy_bento",
    "describe_data",
    "detect_drift",
    "export_bento",
    "import_bento",
    "load_test",
    "move_release",
    "package_model",
    "plan_batch",
    "predict_batch",
    "predict_shard",
    "promote_model",
    "pull_model",
    "require_passed",
    "resolve_models",
    "roll_back",
    "scan_model",
    "settle_run",
    "shift_requests",
    "train_lightgbm",
    "train_sklearn",
    "train_wine_model",
    "train_xgboost",
]
