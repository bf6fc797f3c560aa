"""Base images: chosen, read, or made of this machine."""
