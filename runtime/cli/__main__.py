"""python -m kfp_bento.runtime.cli."""

from . import main

main()
