"""Using it: images of lines to text, and how right that text is."""
