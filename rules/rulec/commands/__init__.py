"""The commands of `tidegate rule` that need no gateway, one module each: add_arguments(parser) and run(arguments)."""
