"""Matplotlib with its own defaults: `from stages.reporting.default_matplotlib import plt`.

When it is imported, Matplotlib reads `matplotlibrc` from the working directory and from several
other places, style sheets from the user's configuration folder, and a backend's name from the
environment. They would change the charts, and a broken one ends the import in a traceback. Here
Matplotlib finds none of them: a folder of the pipeline is both its working directory and its
configuration folder. It keeps its list of fonts there.
"""

import contextlib
import logging
import os
import warnings

from stages.common import paths
from stages.common.errors import StageError

folder = paths.MATPLOTLIB.absolute()
os.environ.pop("MATPLOTLIBRC", None)
os.environ["MPLCONFIGDIR"] = str(folder)
os.environ["MPLBACKEND"] = "agg"  # draws to files, without a display
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns if it cannot keep that list
# Its font lacks Chinese, for example: PNG files have boxes there. Browsers have other fonts.
warnings.filterwarnings("ignore", "Glyph .* missing from font")

try:
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        import matplotlib.pyplot as plt
        from matplotlib.axes import Axes
        from matplotlib.colors import PowerNorm
        from matplotlib.figure import Figure
        from matplotlib.rcsetup import cycler
        from matplotlib.ticker import LogLocator, NullLocator
except OSError as error:
    raise StageError(
        f"Matplotlib cannot use {folder}: {error.strerror or error}; make room or make it "
        "writable, and run it again"
    ) from None

__all__ = ["Axes", "Figure", "LogLocator", "NullLocator", "PowerNorm", "cycler", "plt"]
