"""stalign: `tl.embed` and `tl.domains` as they come, from genes alone."""

from common import main

import stalign

stalign.settings.verbosity, stalign.settings.show_progress = "error", False


def embed(adata, n, seed):
    totals = "total_counts" if "total_counts" in adata.obs else None
    stalign.tl.embed(adata, image=False, total_counts=totals)


def domains(adata, n, seed):
    stalign.tl.domains(adata, n, random_state=seed)
    return adata.obs["stalign_domain"].astype(str)


main(embed, domains)
