"""What `tidegate doctor` looks at: a module for each part of the world, in it a small function for each question, given its source and yielding Findings."""
