"""The rule author's tools: from a source to a .wasm file, its samples, and what it costs. Runs on the laptop; the gateway does not import it."""
