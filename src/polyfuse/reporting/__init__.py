"""The report: all that is measured of a model on some rows, as JSON and as one page."""
