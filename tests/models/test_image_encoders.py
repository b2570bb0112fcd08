from dataclasses import replace

import numpy as np
import pytest
import torch

from stalign.models import ConvEncoder, Features, TimmEncoder, n_parameters
from stalign.models.image_encoders import image_encoder, standardise


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_standardise_against_a_literal_one(rng):
    image = rng.integers(0, 256, size=(4, 3, 5, 6), dtype=np.uint8)
    mean, std = rng.random((4, 3)), rng.random((4, 3)) + 0.1
    got = standardise(*map(torch.tensor, (image, mean, std)))
    want = np.empty(image.shape)
    for b in range(4):
        for c in range(3):
            want[b, c] = (image[b, c] / 255 - mean[b, c]) / std[b, c]
    np.testing.assert_allclose(got.numpy(), want)


def test_float_images_are_on_the_scale_of_one():
    image = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = torch.rand(1, 3), torch.rand(1, 3) + 0.1
    torch.testing.assert_close(standardise(image, mean, std), standardise(image.float() / 255, mean, std))


def test_colours_of_a_blank_section_stay_finite():
    blank = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    assert (standardise(blank, torch.ones(1, 3), torch.zeros(1, 3)).abs() < 1e-4).all()


@pytest.mark.parametrize(("stem", "first"), [("cifar", 32), ("strided", 16), ("imagenet", 8)])
def test_stems_set_the_size_of_the_first_stage(mini, stem, first):
    encoder = image_encoder(ConvEncoder(channels=(4, 4, 8, 8), stem=stem), mini).eval()
    sizes = []
    encoder.backbone.layer1.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[2:])))
    assert encoder(torch.randn(2, 3, 32, 32)).shape == (2, 2, 8)
    assert sizes == [(first, first)]


def test_patches_of_any_size(mini):
    encoder = image_encoder(mini.spot_image, mini).eval()
    for side in (12, 28, 41):
        assert encoder(torch.randn(2, 3, side, side + 1)).shape == (2, 2, 8)


def test_an_embedding_does_not_depend_on_its_batch(mini, stirred):
    encoder = stirred(mini).image_encoders["spot"].double()
    image = torch.randn(7, 3, 12, 12, dtype=torch.float64)
    together = encoder(image)
    torch.testing.assert_close(together, torch.cat([encoder(one[None]) for one in image]))
    torch.testing.assert_close(together[[3, 0]], encoder(image[[3, 0]]))


def test_patches_go_through_in_parts_that_a_cache_holds_and_batch_norms_still_see_them_all(mini, monkeypatch):
    encoder, image = image_encoder(mini.niche_image, mini).eval(), torch.rand(7, 3, 16, 16)
    sizes = []
    encoder.backbone.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    with torch.inference_mode():
        expected = encoder(image)
        monkeypatch.setattr("stalign.models.image_encoders.PIXELS", 3 * 16 * 16)
        torch.testing.assert_close(encoder(image), expected)
        encoder.train()(image)
    encoder.eval()(image)  # as autograd would hold all parts anyway
    assert sizes == [7, 3, 3, 1, 7, 7]


def test_paper_encoder_has_the_authors_layers():
    from stalign.models import ST_ALIGN

    with torch.device("meta"):
        encoder = image_encoder(ST_ALIGN.spot_image, ST_ALIGN)
    net = encoder.backbone
    assert (net.conv1.kernel_size, net.conv1.stride, net.conv1.out_channels) == ((3, 3), (1, 1), 64)
    assert [len(getattr(net, f"layer{i}")) for i in (1, 2, 3, 4)] == [3, 4, 6, 3]
    assert isinstance(net.maxpool, torch.nn.Identity)
    assert (net.fc.in_features, net.fc.out_features) == (2048, 512)
    assert n_parameters(encoder.tokens) == 16  # one weight and one bias per token


def test_features_pass_by_the_backbone(paper):
    encoder = image_encoder(Features(dim=16), paper)
    features = torch.randn(3, 16)
    assert encoder(features).shape == (3, 2, 8)
    assert n_parameters(encoder) == 2 * 2 + 2
    with pytest.raises(ValueError, match=r"features \(B, 16\).*\(3, 3, 8, 8\)"):
        encoder(torch.randn(3, 3, 8, 8))
    with pytest.raises(ValueError, match=r"\(3, 17\)"):
        encoder(torch.randn(3, 17))


def test_any_model_of_timm(paper):
    spec = TimmEncoder("resnet10t", features=512, tokens="linear")
    encoder = image_encoder(spec, paper).eval()
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder(image), encoder(encoder.backbone(image)))  # features computed before
    with pytest.raises(ValueError, match="512"):
        image_encoder(replace(spec, features=100), paper)
