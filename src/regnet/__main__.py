"""`python -m regnet` is the command `regnet`."""

from regnet.cli import main

main()
