"""Rules in a process of their own: the daemon's side, the worker's, and the memory between them."""
