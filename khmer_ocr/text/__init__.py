"""What is written: normal forms, syllables, corpora."""
