"""For whom a model fails: metrics by group, their differences, and what narrowing them costs."""
