"""From a checkpoint's folder to a model on its device, whose layers attend as flexray's masks say."""
