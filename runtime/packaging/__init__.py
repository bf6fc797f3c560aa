"""Models to an image in one place: the first stops of the road without anything stored between."""

from kfp_bento.runtime.packaging.package import Package, PackageOptions, packaged

__all__ = ["Package", "PackageOptions", "packaged"]
