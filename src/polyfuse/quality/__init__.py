"""What is wrong with the rows of a table: doubles, leaks, answers that contradict each other or are likely wrong."""
