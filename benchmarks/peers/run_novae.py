"""novae, zero-shot with its human weights from the hub: n domains of its tree."""

import novae
from common import main


def domains(adata, n, seed):
    novae.settings.auto_preprocessing = True
    novae.spatial_neighbors(adata, technology="visium")
    model = novae.Novae.from_pretrained("prism-oncology/novae-human-0")
    model.compute_representations(adata, zero_shot=True)
    column = model.assign_domains(adata, n_domains=n)
    return adata.obs[column].astype(str)


main(domains)
