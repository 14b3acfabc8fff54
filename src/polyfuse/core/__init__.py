"""What every room of the house shares: types, contracts, registry, errors. Knows only torch."""
