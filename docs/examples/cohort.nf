// nextflow run cohort.nf --sections 'cohort/*.h5ad' --out embedded
// One task a section. -resume goes on where it was.
params.sections = 'cohort/*.h5ad'
params.out = 'embedded'
params.weights = 'stalign-mini'

process EMBED {
    cpus 2
    memory '8 GB'
    publishDir params.out, mode: 'copy'

    input:
    path section

    output:
    path '*.stalign.h5ad'

    script:
    """
    stalign embed ${section} --out . --weights ${params.weights}
    """
}

workflow {
    EMBED(Channel.fromPath(params.sections))
}
