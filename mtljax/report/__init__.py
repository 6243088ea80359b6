"""Report of a run: pictures, and one page that opens offline."""
