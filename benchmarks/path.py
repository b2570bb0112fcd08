"""How many modules a table meets between `tl.embed` and its result: what a reader has to follow.

A stop is a call of a function of stalign, in another module than the stop before, that is handed the table, a section
of it or a list of sections; what an object asks of itself is none.
"""

from __future__ import annotations

import sys
from pathlib import Path

import stalign

ROOT = Path(stalign.__file__).parent


def main() -> None:
    adata = stalign.datasets.toy(10)
    stalign.tl.embed(adata, copy=True)  # imports
    stops: list[str] = []

    def handed(value: object) -> bool:
        name = type(value).__name__
        return (
            value is adata
            or name in {"Section", "SectionView"}
            or (isinstance(value, list) and len(value) > 0 and type(value[0]).__name__ in {"Section", "SectionView"})
        )

    def watch(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event != "call" or not path.is_relative_to(ROOT) or frame.f_code.co_name.startswith("<"):
            return
        arguments = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
        arguments = arguments[1:] if arguments[:1] == ("self",) else arguments
        module = str(path.relative_to(ROOT))
        if any(handed(frame.f_locals.get(name)) for name in arguments) and (not stops or stops[-1] != module):
            stops.append(module)

    with stalign.settings.override(verbosity="error", show_progress=False):
        sys.setprofile(watch)
        try:
            stalign.tl.embed(adata)
        finally:
            sys.setprofile(None)
    back = sum(stop in stops[:index] for index, stop in enumerate(stops))
    print(f"{len(stops)} stops, {back} of them returns, {len(set(stops))} modules")
    print(" > ".join(stops))


if __name__ == "__main__":
    main()
