"""A predictor behind HTTP: doors, bodies, an engine that answers requests together, a page, a log."""
