"""Debian packages of an image, added without running their scripts."""
