"""Encoded lines to texts: greedy, CTC beam, or CTC and decoder jointly."""
