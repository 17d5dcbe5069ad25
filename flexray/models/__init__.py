"""A checkpoint's folder to a model on its device, patched to attend as flexray's masks say."""
