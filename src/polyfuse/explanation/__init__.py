"""Why a model answered as it did, row by row: attributions on any callable, with their own faithfulness."""
