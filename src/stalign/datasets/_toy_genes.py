"""Gene symbols of the toy section: marker programmes of the human cortex, and families that every cell expresses."""

from __future__ import annotations

from typing import Final

PROGRAMMES: Final[dict[str, str]] = {
    # what all neurons share, so that no band of the cortex is told by one gene
    "neuron": """SNAP25 SYT1 STMN2 STMN1 NRGN CALM1 CALM2 CALM3 UCHL1 THY1 NEFL NEFM ENC1 CHN1 SYN1 SYN2 SNCA SNCB VSNL1
        OLFM1 NCDN CAMK2A CAMK2B CAMK2N1 GAP43 STXBP1 ATP1A3 ATP1B1 SLC17A7 GRIN1 GRIN2A GRIN2B GRIA1
        GRIA2 DLG4 SHANK2 NRXN1 NRXN3 MAP2 RTN1 BASP1 MEF2C YWHAH PPP3CA PPP3R1 CCK""",
    "L1": """RELN CXCL14 NDNF LHX5 FABP7 MYL9 ID1 ID3 VIM SERPINF1 MT1G MT1X MT1M MT2A GFAP AQP4 SPARCL1 CLU CST3 AGT
        APOE PTGDS IGFBP7 SPARC TIMP3 SLC1A2 SLC1A3 GJA1""",
    "L2/3": """CUX2 CUX1 HPCAL1 CALB1 CARTPT LAMP5 LAMP3 PCDH8 RASGRF2 SERPINE2 WFS1 HOPX C1QL2 C1QL3 FREM3 PDGFD GLRA3
        GNAL LINC00507 MGP STXBP6 COL5A2 RORA HS3ST4""",
    "L4": """RORB NEFH PVALB VAMP1 SYT2 CPLX1 SCN1B KCNC1 KCNAB3 GABRA1 GABRG2 GAD1 GAD2 COX7B ATP5MC1 TESC RGS4
        CNTNAP4 TMEM233 THEMIS SULF1 CUX1 TRIB2 HAPLN4""",
    "L5/6": """PCP4 TLE4 FEZF2 TBR1 FOXP2 BCL11B ETV1 NTNG2 SEMA3E ROBO2 KRT17 DIRAS2 SCN3B HTR2C NR4A2 OPRK1 CRYM SYT6
        GRIK4 CCN2 TH NPTX1 SYNPR ADRA2A TRMT9B DPP4 LXN""",
    "WM": """MOBP MBP PLP1 MOG MAG MAL CNP CLDN11 TF ERMN OPALIN UGT8 FA2H CRYAB QDPR SCD CARNS1 ASPA ENPP2 ERBB3
        SOX10 OLIG1 OLIG2 NKX6-2 GPR37 TMEM144 CNDP1 PLLP SEPTIN4 HAPLN2 GJB1 BCAS1 PPP1R14A TUBB4A
        STMN4""",
    # what crosses the bands: vessels and microglia, early genes
    "vessel": """HBA1 HBA2 HBB CLDN5 FLT1 VWF PECAM1 CDH5 ENG ACTA2 TAGLN MYH11 RGS5 PDGFRB COL1A1 COL1A2 COL3A1 COL4A1
        COL4A2 A2M BSG ESAM CD74 C1QA C1QB C1QC CSF1R AIF1 TYROBP HLA-DRA HLA-A HLA-B HLA-C B2M""",
    "early": """FOS FOSB JUN JUNB JUND EGR1 EGR2 EGR3 ARC NR4A1 NPAS4 DUSP1 DUSP5 DUSP6 IER2 IER5 ATF3 BTG2 KLF2 KLF4
        KLF6 HSPA1A HSPA1B HSPA8 HSP90AA1 HSP90AB1 DNAJB1 UBC""",
}

_RPL = (
    "3 4 5 6 7 7A 8 9 10 10A 11 12 13 13A 14 15 17 18 18A 19 21 22 23 23A 24 26 27 27A 28 29 30 31 32 34 35 35A 36 37 "
    "37A 38 39 41"
)
_RPS = "2 3 3A 5 6 7 8 9 10 11 12 13 14 15 15A 16 17 18 19 20 21 23 24 25 26 27 27A 28 29"


def _numbered(prefix: str, first: int, last: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(first, last + 1)]


def _suffixed(prefix: str, suffixes: str) -> list[str]:
    return [prefix + suffix for suffix in suffixes.split()]


def ribosomal() -> list[str]:
    """Symbols of ribosomal proteins, read by every cell at a high level."""
    return [*_suffixed("RPL", _RPL), *_suffixed("RPLP", "0 1 2"), *_suffixed("RPS", _RPS), "RPSA"]


def mitochondrial() -> list[str]:
    """Symbols of the protein-coding genes of the mitochondrial genome."""
    return _suffixed("MT-", "ND1 ND2 ND3 ND4 ND4L ND5 ND6 CO1 CO2 CO3 ATP6 ATP8 CYB")


def generic() -> list[str]:
    """Symbols of genes that tell no band from another."""
    families = [
        *_numbered("PSMA", 1, 7),
        *_numbered("PSMB", 1, 10),
        *_numbered("PSMC", 1, 6),
        *_numbered("PSMD", 1, 8),
        *_numbered("NDUFA", 1, 13),
        *_numbered("NDUFB", 1, 11),
        *_numbered("NDUFS", 1, 8),
        *_numbered("COPS", 2, 6),
        *_numbered("SRSF", 1, 11),
        *_numbered("MCM", 2, 7),
        *_numbered("CCT", 2, 5),
        *_numbered("ARPC", 2, 3),
        *_numbered("SF3B", 1, 6),
        *_numbered("STAT", 1, 4),
        *_numbered("SMAD", 1, 7),
        *_numbered("TRIM", 2, 11),
        *_numbered("CDK", 1, 10),
        *_numbered("RAB", 18, 21),
        *_numbered("USP", 1, 8),
        *_suffixed(
            "EIF", "1 1AX 1B 2S1 2S2 2S3 3A 3B 3D 3E 3F 3G 3H 3I 3J 3K 3L 3M 4A1 4A2 4A3 4B 4E 4G1 4G2 4H 5 5A 5B 6"
        ),
        *_suffixed("HNRNP", "A0 A1 A2B1 A3 AB C D DL F H1 H2 H3 K L M R U UL1"),
        *_suffixed("COX", "4I1 5A 5B 6A1 6B1 6C 7A2 7C 8A 14 16 17 20"),
        *_suffixed("ATP5F1", "A B C D E"),
        *_suffixed("ATP5M", "C2 C3 E F G"),
        *_suffixed("UQCR", "B C1 C2 FS1 H Q 10 11"),
        *_suffixed("UBE2", "A B C D1 D2 D3 E1 E3 G1 G2 H I K L3 M N R2 S V1 V2 Z"),
        *_suffixed("TUB", "A1A A1B A1C B B2A B2B B3 G1"),
        *_suffixed("ACT", "B G1 N1 N4 R2 R3"),
        *_suffixed("RAB", "1A 1B 2A 3A 4A 5A 5B 5C 6A 7A 8A 9A 10 11A 14"),
        *_suffixed("SLC25A", "3 4 5 6 11 12"),
        *_suffixed("VDAC", "1 2 3"),
        *_suffixed("YWHA", "B E G Q Z"),
        *_suffixed("PPP", "1CA 1CB 1CC 2CA 2CB 2R1A 4C 6C"),
        *_suffixed("SNRP", "A B C D1 D2 D3 E F G N"),
        *_suffixed("POLR2", "A B C D E F G H I K L"),
        *_suffixed("TOMM", "5 6 7 20 22 40 70"),
        *_suffixed("TIMM", "8B 9 10 13 17A 23 44 50"),
        *_suffixed("CHCHD", "1 2 3 4 5 6 7 10"),
        *_suffixed("ARF", "1 3 4 5 6"),
        *_suffixed("SEC", "13 22B 23A 24C 31A 61A1 61B 61G 62 63"),
        *_suffixed("DNAJ", "A1 A2 B6 B11 C3 C5 C7 C8"),
    ]
    single = """GAPDH TPI1 PGK1 ENO1 ENO2 LDHA LDHB ALDOA ALDOC PKM PGAM1 MDH1 MDH2 GOT1 GOT2 CS SDHA SDHB SDHC SDHD FH
        IDH1 IDH2 IDH3A TPT1 FTH1 FTL TMSB4X TMSB10 PFN1 PFN2 CFL1 GNAS GNB1 GNAI2 NACA BTF3 FAU UBA52
        EEF1A1 EEF1A2 EEF1B2 EEF1D EEF1G EEF2 HINT1 PRDX1 PRDX2 PRDX3 PRDX5 PRDX6 SOD1 SOD2 CAT GPX4 TXN
        TXNRD1 PPIA PPIB HPRT1 TBP GUSB SDF4 CANX CALR PDIA3 PDIA6 HSP90B1 HSPA5 HSPA9 HSPD1 HSPE1 NPM1
        NCL SET HMGB1 HMGN1 HMGN2 SUMO1 SUMO2 NEDD8 CDC42 RAC1 RHOA RHOB CTNNB1 APP APLP1 APLP2 PSAP
        CTSB CTSD CTSL GRN LAMP1 LAMP2 CD63 CD81 CD9 ITM2B ITM2C SERINC1 SERINC3 OAZ1 ODC1 SAT1 AMD1 MIF
        NME1 NME2 COX7A2L SKP1 CUL1 CUL3 RBX1 VCP TARDBP FUS MATR3 PTBP1 PABPC1 PCBP1 PCBP2 SON SRRM2
        NEAT1 MALAT1 MEG3 XIST GABARAP GABARAPL2 MAP1LC3A MAP1LC3B SQSTM1 TAX1BP1 STUB1 BAG1 BAG6 MCL1
        BCL2L1 BAX DAD1 OST4 SPCS1 SPCS2 SSR2 SSR3 SSR4 KDELR1 KDELR2 COPA COPB1 COPE AP2M1 AP2S1 CLTA
        CLTB CLTC DYNLL1 DYNLL2 DYNLRB1 DCTN1 KIF5A KIF5B KIF5C MAPT MAP1A MAP1B TTC3 PEBP1 PARK7 PINK1
        NDRG2 NDRG4 TCEAL2 TCEAL4 BEX1 BEX2 BEX3""".split()
    return [*families, *single]


def symbols() -> list[str]:
    """Every symbol once: programmes first, then ribosomal, mitochondrial and generic genes."""
    markers = [symbol for text in PROGRAMMES.values() for symbol in text.split()]
    return list(dict.fromkeys([*markers, *ribosomal(), *mitochondrial(), *generic()]))
