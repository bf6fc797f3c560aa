"""The Python environment of an image: its lock, its wheels and their bytecode."""
