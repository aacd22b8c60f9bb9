"""Pictures for people: contact sheets, recipe sheets, font cards, error sheets."""
