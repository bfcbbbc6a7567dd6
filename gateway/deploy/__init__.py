"""Which version of a rule runs: admission, swaps, shadows, rollbacks, and the record of all of it."""
