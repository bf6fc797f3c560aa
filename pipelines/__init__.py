"""Reusable pipelines: composition only."""

from kfp_bento.pipelines.batch_score import batch_score, batch_score_with
from kfp_bento.pipelines.canary_release import canary_release, canary_with
from kfp_bento.pipelines.move_to_production import move_to_production
from kfp_bento.pipelines.release_model import release_model, release_with
from kfp_bento.pipelines.retrain_on_drift import retrain_on_drift, retrain_with
from kfp_bento.pipelines.roll_back_model import roll_back_model
from kfp_bento.pipelines.serve_model import serve_model, serve_with
from kfp_bento.pipelines.serve_service import serve_service
from kfp_bento.pipelines.serve_with_yatai_builder import (
    serve_with_builder,
    serve_with_yatai_builder,
)
from kfp_bento.pipelines.train_to_serve import train_to_serve
from kfp_bento.pipelines.train_wine_to_serve import train_wine_to_serve

__all__ = [
    "batch_score",
    "batch_score_with",
    "canary_release",
    "canary_with",
    "move_to_production",
    "release_model",
    "release_with",
    "retrain_on_drift",
    "retrain_with",
    "roll_back_model",
    "serve_model",
    "serve_service",
    "serve_with",
    "serve_with_builder",
    "serve_with_yatai_builder",
    "train_to_serve",
    "train_wine_to_serve",
]
