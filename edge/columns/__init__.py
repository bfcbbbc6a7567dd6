"""Batches: the events of one stream as typed columns in memory, and their schema."""
