"""Plain Kubernetes: a Deployment and its Service."""
