"""Masks to be drawn, made of segment names alone."""

from itertools import groupby

import numpy as np

from flexray.masks.stream import Segment
from flexray.report.mask_picture import MaskPicture


def picture_of(mask, labels, names):
    """Positions are those of the stream."""
    segments, start = [], 0
    for name, same in groupby(names):
        segments.append(Segment(name, start, start := start + len(list(same))))
    return MaskPicture(mask, segments, list(labels), np.arange(len(mask)))
