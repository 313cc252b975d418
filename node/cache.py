"""Where Hearsay keeps what it can make again."""

import os
from pathlib import Path

import pooch


def cache_folder() -> Path:
    """Return $HEARSAY_CACHE, else hearsay/ where this user's caches are."""
    return Path(os.environ.get("HEARSAY_CACHE") or pooch.os_cache("hearsay"))
