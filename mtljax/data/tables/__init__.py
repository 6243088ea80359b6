"""Tables of labels: CSV, JSON lines and Parquet."""
