"""The bentos that most tests of this stop deploy."""

from __future__ import annotations

import pytest
from sample_bentos import IMAGE, make_bento

from kfp_bento.runtime.bentos import Bento


@pytest.fixture
def image() -> str:
    return IMAGE


@pytest.fixture
def bento() -> Bento:
    return make_bento()


@pytest.fixture
def old_style_bento() -> Bento:
    """What BentoML 1.1 and before built: runners of their own."""
    runners = (
        {
            "name": "model-a",
            "runnable_type": "MLflowPyfuncRunnable",
            "models": ["model_a:v1"],
            "embedded": False,
        },
        {"name": "model-b", "runnable_type": "SklearnRunnable", "models": []},
    )
    return make_bento("fraud_detection", "v1", bentoml_version="1.1.11", runners=runners)
