# SPDX-License-Identifier: MIT
"""Draws where the decoder of `dates` looked:  python3 alignment.py FOLDER PICTURE.png"""
import os
import sys

import matplotlib
import numpy

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402


def main():
    folder, picture = sys.argv[1:]
    weights = numpy.load(os.path.join(folder, "alignment.npy"))  # heads, characters written, characters read
    with open(os.path.join(folder, "date.txt")) as f:
        read, written = f.read().splitlines()
    figure, panels = pyplot.subplots(1, len(weights), squeeze=False, figsize=(4 * len(weights), 3))
    for head, panel in zip(weights, panels[0]):
        panel.imshow(head[:len(written), :len(read)], cmap="viridis", vmin=0, vmax=1)
        panel.set_xticks(range(len(read)), list(read))
        panel.set_yticks(range(len(written)), list(written))
    figure.tight_layout()
    figure.savefig(picture, dpi=100)


main()
