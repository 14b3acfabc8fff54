"""Tables in: column types, reading, checks, rows, splits, batches."""
