"""Attacks: threat models, and searches for the worst input inside them, on any callable with bounds."""
