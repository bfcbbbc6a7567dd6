"""Rules at work: modules checked, compiled, bound to a stream and called."""
