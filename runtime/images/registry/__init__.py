"""A client for OCI registries, made for large blobs."""
