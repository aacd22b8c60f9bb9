"""The stored format: names, metadata, checks."""
