"""Raw text to lines: read, filtered, cut, deduplicated, split."""
