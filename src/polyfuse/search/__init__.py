"""The best way to combine, found by comparing candidates on Features that were computed once."""
