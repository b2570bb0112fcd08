"""The gene encoders. Terms were read from the authors' pages and code; check them before use."""

from __future__ import annotations

from stalign.encoders.card import Card

GENE_CARDS = (
    Card(
        "scgpt", "gene", "stalign.encoders.scgpt_files:load", width=512, access="folder",
        files=("model.safetensors", "best_model.pt"), n_parameters=50_278_400, licence="MIT", commercial=True,
        gated=False, citation="Cui et al. 2024, Nat Methods 21:1470", url="https://github.com/bowang-lab/scGPT",
        options={"sample": "random", "max_length": 1200, "seed": 0},
        choices={"sample": ("random", "top"), },
        note="Download the folder of the whole-human model from the link in its README (args.json, best_model.pt, "
        "vocab.json) and pass its path as `weights=`. Counts must be raw.",
    ),
    Card(
        "scfoundation", "gene", "stalign.encoders.scfoundation:load", width=768, access="folder",
        files=("models.ckpt",), n_parameters=99_940_156, licence="non-commercial research, revocable", commercial=False,
        gated=True, citation="Hao et al. 2024, Nat Methods 21:1481",
        url="https://github.com/biomap-research/scFoundation",
        options={"pool": "all", "depth": 4.0}, choices={"pool": ("all", "max")},
        note="Its authors hand out models.ckpt on the SharePoint page that their README links; put "
        "OS_scRNA_gene_index.19264.tsv of their repository beside it and pass the folder as `weights=`.",
    ),
    Card(
        "pca", "gene", "stalign.encoders.pca:load", width=50, licence="BSD-3-Clause", commercial=True, gated=False,
        citation="Wolf et al. 2018, Genome Biol 19:15 (scanpy)", url="https://scanpy.readthedocs.io",
        options={"n_comps": 50, "n_top_genes": 2000, "target_sum": 1e4, "seed": 0},
        note="Fitted to the table at hand: normalise, log1p, highly variable genes, principal components.",
    ),
)  # fmt: skip
