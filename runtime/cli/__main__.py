"""python -m kfp_bento.runtime.cli."""

from kfp_bento.runtime.cli import main

main()
