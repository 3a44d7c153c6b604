"""Tables and pictures as text and files. What they hold comes from `core`; what they look like is decided here."""
