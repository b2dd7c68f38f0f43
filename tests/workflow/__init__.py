"""The chat workflow, as its users call it."""
