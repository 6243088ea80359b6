"""Report of a run: figures, and a self-contained HTML page."""
