"""The recogniser: image to text, by attention over frames that CTC has aligned."""
