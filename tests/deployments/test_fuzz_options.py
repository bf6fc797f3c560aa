"""Options that are almost right: what is changed in them is rendered, or refused by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import changed_document
from sample_targets import RENDERED

from kfp_bento.runtime.deployments import TARGETS
from kfp_bento.runtime.errors import InvalidInput

SHORT = settings(derandomize=True, deadline=None, max_examples=300, database=None)
LONG = settings(derandomize=True, deadline=None, max_examples=5000, database=None)
POLICY = {"ingress": ["team"], "egress": ["dns", {"ipBlock": {"cidr": "10.0.0.0/8"}}]}


@st.composite
def almost_right(draw: st.DrawFn) -> tuple[str, str, Any, Any]:
    target, image, bento, options = RENDERED[draw(st.sampled_from(list(RENDERED)))]
    apart = (
        {}
        if options.get("deployment_mode") in ("Knative", "Serverless")
        else {"network_policy": POLICY}
    )
    return target, image, bento, draw(changed_document({**options, **apart}))


def check(target: str, image: str, bento: Any, options: Any) -> None:
    if not isinstance(options, dict):
        return
    try:
        manifests = TARGETS[target].render(image, bento, options).manifests
    except InvalidInput as refused:
        assert refused.message and refused.hint
    else:
        assert json.loads(json.dumps(manifests, allow_nan=False)) == list(manifests)


@given(almost_right())
@SHORT
def test_changed_options_are_rendered_or_refused(made: tuple[str, str, Any, Any]) -> None:
    check(*made)


@pytest.mark.slow
@given(almost_right())
@LONG
def test_many_changed_options_are_rendered_or_refused(made: tuple[str, str, Any, Any]) -> None:
    check(*made)
