"""`audioclf cache`."""

from pathlib import Path

from ..config import default_cache_dir


def cache(cache_dir: str | None = None, clear: bool = False) -> int:
    """Show what the cache of decoded audio and features holds, or clear it.

    Args:
        cache_dir: Folder of the cache; ~/.cache/audioclf when not given.
        clear: Delete all decoded audio and features. Fetched archives stay.
    """
    from .. import cache as stores

    folder = Path(cache_dir) if cache_dir else default_cache_dir()
    rows = stores.report(folder)
    for row in rows:
        print(f"{row['bytes'] / 2**20:10.1f} MiB  {row['clips']:8,} clips  {row['folder']}")
    print(f"{sum(row['bytes'] for row in rows) / 2**20:10.1f} MiB in {len(rows)} sets of clips below {str(folder)!r}")
    if clear:
        print(f"freed {stores.clear(folder) / 2**20:.1f} MiB")
    return 0
