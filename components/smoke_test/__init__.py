"""The smoke_test component."""

from .component import smoke_test

__all__ = ["smoke_test"]
