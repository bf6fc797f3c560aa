"""Signatures of images as cosign writes and verifies them, with keys and without any service."""
