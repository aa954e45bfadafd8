"""The model families, a room each."""
