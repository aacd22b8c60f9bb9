"""What talks to the operating system for all stages: files written whole, locks, devices."""
