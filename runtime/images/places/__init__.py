"""Where images are read and written: registries, OCI layouts and archives."""
