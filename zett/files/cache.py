"""The folder for results that are kept from run to run."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where prepared data is kept: `$ZETT_CACHE`, or `zett` under the user's cache folder."""
    return Path(os.environ.get("ZETT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "zett")).expanduser()
