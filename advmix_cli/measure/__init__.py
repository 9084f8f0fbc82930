"""A network and evaluators -> what they find."""
