"""Command line: flags, tables and one module per family of verbs; parsing and printing only."""
