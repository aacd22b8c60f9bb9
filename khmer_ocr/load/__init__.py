"""Reading: stored lines to training batches."""
