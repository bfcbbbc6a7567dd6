"""Batches as bytes, for logs and upstream, and the receiving end."""
