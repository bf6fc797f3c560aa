"""The kinds of Yatai's operators."""

from __future__ import annotations

from kfp_bento.runtime.deployments.targets.target import Kind

BENTO = Kind("resources.yatai.ai/v1alpha1", "Bento", "bentoes")
BENTO_REQUEST_KIND = Kind("resources.yatai.ai/v1alpha1", "BentoRequest", "bentorequests")
BENTO_DEPLOYMENT_KIND = Kind("serving.yatai.ai/v2alpha1", "BentoDeployment", "bentodeployments")
