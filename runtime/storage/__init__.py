"""Storage behind one small interface; so far, directories that are never half-made."""

from .directories import put_in_place, remove_tree, scratch_beside

__all__ = ["put_in_place", "remove_tree", "scratch_beside"]
