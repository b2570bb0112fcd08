"""io.read_slide: files, scales, grids, tissue outlines, grids between measured spots."""

from __future__ import annotations

from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import tifffile
from PIL import Image

import stalign
from stalign._constants import Keys
from stalign.data import open_sections
from stalign.io import read_slide
from stalign.io._resolution import file_mpp


def made(height=300, width=400):
    """A slide at 4 µm per px: tissue in the middle of glass."""
    rng = np.random.default_rng(0)
    image = np.full((height, width, 3), (244, 243, 245), dtype=np.float64)
    image[60:240, 80:280] = (200, 120, 170)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def file(tmp_path):
    Image.fromarray(made()).save(tmp_path / "case 1.png")
    return tmp_path / "case 1.png"


def test_spots_of_a_visium_grid_on_the_tissue(file, tmp_path):
    adata = read_slide(file, 4.0)
    assert adata.n_vars == 0 and list(adata.uns["spatial"]) == ["case 1"]
    x, y = adata.obsm[Keys.SPATIAL].T
    assert x.min() >= 75 and x.max() <= 285 and y.min() >= 55 and y.max() <= 245
    assert 55 < adata.n_obs < 80  # 0.8 x 0.72 mm, 67 spots of a hexagonal grid
    (view,) = open_sections(adata)
    assert (view.technology, view.coord_mpp, view.pitch_um, view.spot_diameter_um) == ("visium", 4.0, 100.0, 55.0)
    assert view.image.shape == (300, 400)
    assert (adata.obs["tissue_fraction"] >= 0.5).all()
    record = adata.uns["stalign"]["slide"]["params"]
    assert (record["grid"], record["tissue"]) == ("visium", "saturation")
    adata.write_h5ad(tmp_path / "x.h5ad")
    assert anndata.read_h5ad(tmp_path / "x.h5ad").uns["stalign"]["slide"]["params"]["mpp"] == 4.0


def test_a_name_with_a_slash_stays_the_sections_name(file, tmp_path):
    adata = read_slide(file, 4.0, name="P1/A")
    adata.write_h5ad(tmp_path / "x.h5ad")
    (section,) = open_sections(anndata.read_h5ad(tmp_path / "x.h5ad"))
    assert section.name == "P1/A" and section.image is not None


def test_squares_of_any_side(file):
    adata = read_slide(file, 4.0, grid=40, name="own")
    (view,) = open_sections(adata)
    assert (view.name, view.technology, view.pitch_um) == ("own", "hd", 40.0)
    assert adata.n_obs == pytest.approx(800 * 720 / 40**2, rel=0.1)
    stricter = read_slide(file, 4.0, grid=40, min_tissue=1.0)
    assert stricter.n_obs < adata.n_obs


def test_a_large_file_stays_on_disk(file, monkeypatch):
    monkeypatch.setattr("stalign.io._files.SMALL_PX", 1000)
    entry = read_slide(file, 4.0).uns["spatial"]["case 1"]
    assert entry["images"] == {} and entry["metadata"]["source_image_path"] == str(file)


def test_scales_that_files_state(tmp_path):
    image = made()
    tifffile.imwrite(tmp_path / "a.svs", image, description="Aperio Image |AppMag = 20|MPP = 0.4990", photometric="rgb")
    tifffile.imwrite(
        tmp_path / "b.ome.tif", image, photometric="rgb", metadata={"axes": "YXS", "PhysicalSizeX": 500.0,
                                                                    "PhysicalSizeXUnit": "nm"}
    )  # fmt: skip
    tifffile.imwrite(tmp_path / "c.tif", image, photometric="rgb", resolution=(2500, 2500), resolutionunit=3)
    tifffile.imwrite(tmp_path / "d.tif", image, photometric="rgb", resolution=(72, 72), resolutionunit=2)
    found = {path.name: file_mpp(path)[0] for path in tmp_path.iterdir()}
    assert found == {
        "a.svs": pytest.approx(0.499), "b.ome.tif": pytest.approx(0.5), "c.tif": pytest.approx(4.0), "d.tif": None,
    }  # fmt: skip
    adata = read_slide(tmp_path / "c.tif")
    assert adata.uns["stalign"]["slide"]["params"]["mpp_origin"] == "resolution of the TIFF"
    with pytest.raises(ValueError, match=r"d\.tif.*`mpp=`"):
        read_slide(tmp_path / "d.tif")


def test_outlines_of_lazyslide(file):
    """A WSIData is a SpatialData with a reader, the slide's properties in attrs, and `tissues` in px of level 0."""
    shapely = pytest.importorskip("shapely")
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel

    ring = shapely.Polygon(shapely.box(100, 100, 200, 200).exterior, [shapely.box(130, 130, 170, 170).exterior])
    wsi = SpatialData(shapes={"tissues": ShapesModel.parse(GeoDataFrame(geometry=[ring]))})
    wsi.attrs["slide_properties"] = {"mpp": 4.0}
    with pytest.raises(ValueError, match="without reader"):
        read_slide(wsi)
    wsi.reader = SimpleNamespace(file=str(file))
    adata = read_slide(wsi, grid=20)
    x, y = adata.obsm[Keys.SPATIAL].T
    assert adata.uns["stalign"]["slide"]["params"]["tissue"] == "tissues"
    assert x.min() >= 100 and x.max() <= 200 and y.min() >= 100 and y.max() <= 200
    assert not ((abs(x - 150) < 17) & (abs(y - 150) < 17)).any()


@pytest.mark.parametrize("container", ["anndata", "spatialdata"])
def test_a_grid_between_measured_spots(container):
    adata = stalign.datasets.toy(12)
    given = adata if container == "anndata" else stalign.datasets.toy(12, spatialdata=True)
    fine = read_slide(given, grid=25)
    (view,), (old,) = open_sections(fine), open_sections(adata)
    assert fine.n_vars == 0 and view.technology == "hd" and view.image is not None
    assert 10 * adata.n_obs < fine.n_obs < 18 * adata.n_obs
    from scipy.spatial import cKDTree

    assert cKDTree(old.coords_um).query(view.coords_um)[0].max() < 75
    window = np.array([[-20.0, -20.0, 20.0, 20.0]])
    place = old.coords_um[40]

    def patch(section):
        centre = section.image.to_pixels(place[None] / section.coord_mpp)
        return section.image.patches(np.tile(centre, 2) + window, 16)

    assert np.abs(patch(view).astype(int) - patch(old)).mean() < 3
    assert "bin_size_um" not in adata.uns["spatial"]["toy"]["scalefactors"]


def test_errors_say_what_to_do(file, tmp_path):
    with pytest.raises(ValueError, match=r"case 1\.png.*Pass `mpp=`"):
        read_slide(file)
    with pytest.raises(FileNotFoundError, match=r"case 1\.png"):
        read_slide(tmp_path / "none.png", 4.0)
    with pytest.raises(FileNotFoundError, match="read_visium"):
        read_slide(tmp_path, 4.0)
    with pytest.raises(ValueError, match="visium"):
        read_slide(file, 4.0, grid="hex")
    with pytest.raises(ValueError, match="min_tissue"):
        read_slide(file, 4.0, min_tissue=2)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"an image.*text\.png, which can't be read"):
        read_slide(tmp_path / "text.png", 4.0)
    Image.new("RGB", (200, 200), (244, 243, 245)).save(tmp_path / "glass.png")
    with pytest.raises(ValueError, match=r"tissue on glass\.png"):
        read_slide(tmp_path / "glass.png", 4.0)
    with pytest.raises(ValueError, match="one section with its image"):
        bare = stalign.datasets.toy(8)
        del bare.uns["spatial"]
        read_slide(bare, grid=25)
    with pytest.raises(TypeError, match="AnnData"):
        read_slide(3)


@pytest.mark.real
def test_measured_spots_lie_on_the_tissue_that_is_found(shared_data):
    from scipy.spatial import cKDTree

    adata = stalign.io.read_h5ad(shared_data / "mob" / "rep1.h5ad")
    found = read_slide(shared_data / "mob" / "rep1.jpg", 2.76, grid=50)
    near = cKDTree(found.obsm[Keys.SPATIAL]).query(adata.obsm[Keys.SPATIAL])[0] * 2.76 < 60
    assert near.mean() > 0.9
    area = found.n_obs * 50**2 / (adata.n_obs * 200**2)
    assert 0.8 < area < 1.4


def test_a_tiled_slide_and_a_jpeg_are_the_same_slide(tmp_path, monkeypatch):
    image = made()
    options = {"tile": (64, 64), "photometric": "rgb", "resolution": (2500, 2500), "resolutionunit": 3}
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=95)
    features = stalign.tl.ImageFeatures("colour", windows=(100.0,), colours=(150.0,))
    monkeypatch.setattr("stalign.io._files.SMALL_PX", 1000)
    whole, photo = read_slide(tmp_path / "a.tif"), read_slide(tmp_path / "a.jpg", 4.0)
    assert whole.obs_names.tolist() == photo.obs_names.tolist()
    expected = features.of(whole, library_key=None, table_key=None)
    off = np.abs(features.of(photo, library_key=None, table_key=None) - expected)
    assert np.median(off[:, :3]) < 0.01
    monkeypatch.setattr("stalign.data.images._IN_MEMORY", 1000)
    monkeypatch.setattr("stalign.data.images._IN_TILES", 100_000)
    in_tiles = read_slide(tmp_path / "a.tif")
    (section,) = open_sections(in_tiles)
    assert section.image.lazy
    np.testing.assert_array_equal(features.of(in_tiles, library_key=None, table_key=None), expected)


def test_tissue_under_a_pen_gets_no_spot_and_a_hole_stays(tmp_path):
    image = made()
    image[60:240, 160:172] = (20, 150, 60)  # a green line, 48 µm wide, over the tissue
    image[180:225, 90:140] = (244, 243, 245)  # a hole of 180 x 200 µm, too small to stay
    image[70:150, 190:265] = (244, 243, 245)  # one of 320 x 300 µm
    Image.fromarray(image).save(tmp_path / "pen.png")
    x, y = read_slide(tmp_path / "pen.png", 4.0, grid=20).obsm[Keys.SPATIAL].T
    assert not ((x > 158) & (x < 174)).any()
    assert ((x > 95) & (x < 135) & (y > 185) & (y < 220)).any()
    assert not ((x > 200) & (x < 255) & (y > 80) & (y < 140)).any()
