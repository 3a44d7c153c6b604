"""The command line: the only place that prints, asks and exits. One file for each command."""
