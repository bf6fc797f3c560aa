"""A Kubernetes cluster and its objects."""
