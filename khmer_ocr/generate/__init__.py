"""Writing: chunks of lines to files or shards, with resume."""
