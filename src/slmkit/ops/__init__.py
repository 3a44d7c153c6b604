"""The verbs. They take values and return values, and do not know each other: `recipes` puts them in a row."""
