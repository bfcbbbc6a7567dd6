"""The configuration: its types, how it is read, and the pages that are made from the types."""
