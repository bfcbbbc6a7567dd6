"""How rows leave: lanes over their outboxes, messages, pace, and the connection upstream."""
