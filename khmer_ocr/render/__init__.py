"""How it is drawn: fonts, shaping, rasters, lines."""
