"""The verbs in a row: each with all that must come before it, and whole pipelines from TOML files."""
