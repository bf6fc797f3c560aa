"""Documents about an image: its bill of materials and its provenance."""
