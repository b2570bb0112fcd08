"""Names of sections as keys of `uns` that h5ad and zarr hold unchanged."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_BYTES = 200  # zarr stores a key as the name of a folder, which file systems limit to 255 bytes
_TAKEN = re.compile(r"\.{0,2}|\.z(array|attrs|group|metadata)|zarr\.json|__.*")  # zarr's own files and prefix
APART = re.compile(r"[/\\\x00]")  # "/" nests groups in HDF5 and zarr, which takes "\" for it


def safe_key(name: str) -> str:
    """Make a key of `uns` of a name.

    Parameters
    ----------
    name
        Name of a section, as the user wrote it.

    Returns
    -------
    The name itself where h5ad and zarr hold it. A name with a slash, a backslash or NUL, of more than 200 bytes in
    UTF-8, or that zarr keeps for itself (".", "..", "zarr.json", two underscores in front) gets up to 40 of its letters
    and digits and eight digits of its SHA-256 instead, such as `P1-A-1f2e3d4c`.

    Examples
    --------
    >>> from stalign.data.names import safe_key
    >>> safe_key("section 1.a")
    'section 1.a'
    >>> safe_key("P1/A")
    'P1-A-655cd2c5'
    """
    encoded = name.encode("utf-8", errors="surrogatepass")
    printable = not any("\ud800" <= letter <= "\udfff" for letter in name)
    if printable and len(encoded) <= _BYTES and not APART.search(name) and not _TAKEN.fullmatch(name):
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", errors="ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", plain)[:40].strip("-")
    return f"{slug or 'name'}-{hashlib.sha256(encoded).hexdigest()[:8]}"
