"""A data directory seen from outside of the daemon: read, followed, mended, cut into slices."""
