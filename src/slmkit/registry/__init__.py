"""The models and runs that this machine has. Files are the truth: there is no database to get out of step."""
