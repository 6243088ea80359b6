"""Command line: flags, tables and one module per family of verbs; no logic of its own."""
