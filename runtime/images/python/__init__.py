"""Python dependencies of an image: the lock, the wheels chosen from it, and their layers."""
