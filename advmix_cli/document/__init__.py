"""A run or a table -> one document: its numbers, its figures, what made it, and how to make it again."""
