"""python -m kfp_bento: the command."""

from kfp_bento.runtime.cli import main

main()
