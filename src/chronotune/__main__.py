"""`python -m chronotune`."""

from chronotune.cli import main

main()
