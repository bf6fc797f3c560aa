"""The logic of kfp-bento: what runs inside the containers, and on a laptop."""

from kfp_bento.runtime.cluster_settings import use_cluster_settings

use_cluster_settings()  # before anything that reads the environment
