"""`python -m gateway` is the console script `gateway`."""

from gateway.commands import main

main()
