"""Learning: a run from pre-flight checks to weights, resumable at any step."""
