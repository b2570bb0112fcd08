"""Put the tables of benchmarks/results into MODEL_CARD.md.

python benchmarks/card.py
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START = "<!-- tables: filled from benchmarks/results by benchmarks/card.py -->"
END = "<!-- end of tables -->"
TABLES = {
    "domains": "Domains with the shipped weights (`benchmarks/domains.py`)",
    "domains-held-out": "Domains with the held-out twin (`benchmarks/domains.py --weights FOLDER`)",
    "limits": "How far a cut of the expression could get (`benchmarks/limits.py`)",
    "genes": "Genes from images with the shipped weights (`benchmarks/genes.py`)",
    "genes-held-out": "Genes from images with weights that have not seen B4, A1, C6 and rep2 (`benchmarks/genes.py`)",
    "matches": "Profiles found by images (`benchmarks/matches.py`)",
    "annotate": "Labels carried and completed (`benchmarks/annotate.py`)",
    "hd": "Domains of Visium HD (`benchmarks/hd.py`)",
    "speed": "Seconds and memory (`benchmarks/speed.py`)",
}


def main() -> None:
    card = ROOT / "MODEL_CARD.md"
    text = card.read_text()
    before, rest = text.split(START)
    _, after = rest.split(END)
    parts = []
    for name, title in TABLES.items():
        file = ROOT / "benchmarks" / "results" / f"{name}.md"
        if file.exists():
            parts.append(f"### {title}\n\n{file.read_text().strip()}\n")
    card.write_text(f"{before}{START}\n\n" + "\n".join(parts) + f"\n{END}{after}")


if __name__ == "__main__":
    main()
