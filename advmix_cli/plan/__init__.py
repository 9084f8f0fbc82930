"""What a recipe or a table costs: counted without running it, and measured on noise where it would run."""
