"""The ways to serve an image, a folder each."""
