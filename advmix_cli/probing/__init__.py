"""One batch through the inner maximizer, looked at closely: nothing is trained."""
