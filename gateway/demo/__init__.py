"""What `tidegate demo` runs: a configuration of every part, for the simulator's fleet `demo`."""
