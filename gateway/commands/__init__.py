"""The commands of `tidegate`, a module each: SUMMARY, add_arguments(parser), run(arguments) -> exit status."""
