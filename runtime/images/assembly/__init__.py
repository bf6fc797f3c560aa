"""Putting an image together out of recipes."""
