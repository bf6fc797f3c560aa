"""The logic of kfp-bento: what runs inside the containers, and on a laptop."""
