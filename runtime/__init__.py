"""The logic of kfp-bento: what runs inside the containers, and on a laptop."""

import os
import sys

from kfp_bento.runtime.cluster_settings import use_cluster_settings
from kfp_bento.runtime.errors import tell_without_traceback

use_cluster_settings()  # before anything that reads the environment
if os.environ.get("_KFP_RUNTIME") == "true":  # a step; KFP's command sets it
    sys.excepthook = tell_without_traceback
