"""The benchmark of the image builder: ours and its peer side by side, in one run."""
