"""`tidegate bench`: each figure measured beside its baseline, in one run on one machine. Method and results: docs/performance.md."""
