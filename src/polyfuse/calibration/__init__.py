"""How sure a model may be: probabilities that mean what they say, and sets and intervals that hold."""
