"""The smoke_test component."""

from kfp_bento.components.smoke_test.component import smoke_test

__all__ = ["smoke_test"]
