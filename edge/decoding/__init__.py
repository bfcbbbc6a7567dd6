"""From a payload to typed columns, by a stream's contract."""
