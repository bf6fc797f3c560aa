"""The kinds beside the core that a plain workload may have."""

from __future__ import annotations

from kfp_bento.runtime.deployments.targets.target import Kind

ROUTE = Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")
MONITOR = Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors")
