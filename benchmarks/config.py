"""What a run of the benchmarks is given."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("STALIGN_TEST_DATA", HERE.parents[1] / "shared" / "data"))

METAVARS = {"slices": "NAME", "weights": "NAME=PATH", "stalign": "NAME", "peers": "NAME", "bins": "N"}  # of several


class Config(BaseModel):
    """Folders, seeds and what else the command line sets; every table reads what it needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(DATA, description="folder of sections")
    cache: Path = Field(Path(tempfile.gettempdir()) / "stalign-benchmarks", description="folder of cached features")
    out: Path = Field(HERE / "results" / "tables", description="folder of the results and the report")
    seeds: int | None = Field(None, ge=1, description="how many; each table has its own number")
    slices: tuple[str, ...] = Field((), description="sections: NAME, PATH[@LABELS[:N]] or FETCHER:ID[@LABELS[:N]]")
    weights: dict[str, str] = Field({}, description="weights of encoders and of networks, NAME=PATH")
    stalign: tuple[str, ...] = Field(("stalign-mini",), description="weights for tl.embed, names or folders")
    steps: int = Field(30, ge=1, description="steps of the short trainings")
    genes: int = Field(50, ge=1, description="how many genes are predicted, where a table names none")
    bench: Path | None = Field(None, description="folder of HEST-bench")
    peers: tuple[str, ...] = Field((), description="peers to run; all by default")
    limit: int | None = Field(None, ge=1, description="seconds that one method may take; each table has its own")
    bins: tuple[int, ...] = Field((5_000, 50_000, 500_000), description="sizes of the simulated sections of `scale`")
    jobs: int = Field(1, ge=1, description="tables that are computed at the same time; those of seconds run alone")
    only: str = Field("", description="rows whose name holds this text")
    level: str = Field("spot", pattern="^(spot|niche)$", description="patch of the image encoders")
    download: bool = Field(
        default=False, description="ask hosts for sections and the hub for weights that are not here"
    )

    def seeds_or(self, n: int) -> range:
        """The seeds: as many as were asked for, or n."""
        return range(self.seeds or n)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser an option for each field."""
    for name, value in Config.model_fields.items():
        option, text = f"--{name}", value.description
        if name == "download":
            parser.add_argument(option, action="store_true", help=text)
        elif name in METAVARS:
            parser.add_argument(option, nargs="+", metavar=METAVARS[name], help=text)
        else:
            parser.add_argument(option, help=f"{text} (default: {value.get_default()})")


def from_options(options: argparse.Namespace) -> Config:
    """Make the configuration of what was given."""
    given = {name: getattr(options, name) for name in Config.model_fields if getattr(options, name) is not None}
    if "weights" in given:
        given["weights"] = _pairs(given["weights"])
    return Config.model_validate(given)


def _pairs(given: Sequence[str]) -> dict[str, str]:
    wrong = [item for item in given if "=" not in item]
    if wrong:
        raise SystemExit(f"Expected NAME=PATH after --weights; found {wrong[0]!r}.")
    return dict(item.split("=", 1) for item in given)
