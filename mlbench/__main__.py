"`python -m mlbench` is the command line."

from mlbench.cli import main

main()
