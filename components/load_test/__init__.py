"""The load_test component."""

from kfp_bento.components.load_test.component import load_test

__all__ = ["load_test"]
