"""`python -m slmkit`."""

from slmkit.cli.app import main

main()
