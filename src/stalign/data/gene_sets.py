"""Files of gene sets."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from stalign._validate import message

if TYPE_CHECKING:
    import os

_KINDS = "a GMT file: a set in each line, name, description and genes, separated by tabs"


def read_gmt(path: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    r"""Read gene sets from a GMT file, such as those of MSigDB, Reactome or Enrichr, gzipped or not.

    Parameters
    ----------
    path
        The file: a set in each line, its name, a description that is left out, and gene symbols, separated by tabs.

    Returns
    -------
    Symbols by name of the set, in the order of the file, each once. A weight after a comma is cut off, sets without
    genes are left out, and lines of one name are joined.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such file, or holds no set.

    Examples
    --------
    >>> import stalign
    >>> from pathlib import Path
    >>> _ = Path("sets.gmt").write_text("MYELIN\tof our own\tMBP\tPLP1\tMAG\n")
    >>> stalign.io.read_gmt("sets.gmt")
    {'MYELIN': ('MBP', 'PLP1', 'MAG')}
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(message(f"Expected {_KINDS}", found=f"nothing at {file}"))
    content = file.read_bytes()
    try:
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        lines = content.decode("utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise ValueError(message(f"Expected {_KINDS}", found=f"{file} ({error})")) from error
    sets: dict[str, dict[str, None]] = {}
    for line in lines:
        name, *rest = (cell.strip() for cell in line.split("\t"))
        genes = [gene for gene in (cell.partition(",")[0].strip() for cell in rest[1:]) if gene]
        if name and genes:
            sets.setdefault(name, {}).update(dict.fromkeys(genes))
    if not sets:
        found = f"{file} of {len(lines)} lines, of which none has a name, a description and genes"
        raise ValueError(message(f"Expected {_KINDS}", found=found))
    return {name: tuple(genes) for name, genes in sets.items()}
