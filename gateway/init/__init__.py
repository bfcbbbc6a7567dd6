"""`tidegate init`: answers from flags or a terminal, a configuration made of them, and the place where it is put."""
