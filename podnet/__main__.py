"""python -m podnet."""

from podnet.cli import main

main()
