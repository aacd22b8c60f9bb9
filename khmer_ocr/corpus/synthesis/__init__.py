"""Lines that no corpus holds: random syllables, recombined lines, numbers, fragments."""
