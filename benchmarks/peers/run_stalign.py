"""stalign: `tl.embed` and `tl.domains` as they come, from genes alone."""

from common import main

import stalign


def domains(adata, n, seed):
    totals = "total_counts" if "total_counts" in adata.obs else None
    with stalign.settings.override(verbosity="error", show_progress=False):
        stalign.tl.embed(adata, image=False, total_counts=totals)
        stalign.tl.domains(adata, n, random_state=seed)
    return adata.obs["stalign_domain"].astype(str)


main(domains)
