"""What an image is made of: names, manifests, blobs, tars and layers, wherever they lie."""
