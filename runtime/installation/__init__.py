"""kfp-bento on a cluster: the images of its steps, made of what is installed here.

`pack_steps_image` makes one out of the lock that lies here and of this very kfp-bento, so that the
steps run the code that submits them. What else an installation takes (compiled pipelines, a Role,
the upload) other rooms have; `kfp-bento install` does it all in one go.
"""

from kfp_bento.runtime.installation.steps_image import (
    STEPS_IMAGES,
    pack_steps_image,
    python_version,
)

__all__ = ["STEPS_IMAGES", "pack_steps_image", "python_version"]
