"""Pages of the gallery that train networks or render scenes: their pictures show what they say."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from support import site_pages


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function from the name of a page of the gallery to the namespace of its cells."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: None)
    plt.switch_backend("agg")
    yield lambda name: site_pages.run_cells(site_pages.DOCS / "gallery" / f"{name}.md")
    plt.close("all")


@pytest.mark.slow
def test_attention_and_masks_are_distributions_and_factors_of_networks_that_learned(run):
    found = run("attention")
    for name in ("mtan_accuracy", "attention_accuracy"):
        assert min(found[name].values()) > 0.3  # 0.1 by chance
    assert all(0 < mask.min() < mask.max() < 1 for mask in found["masks"].values())
    for maps in found["maps"].values():
        np.testing.assert_allclose(maps.sum((1, 2)), 1, atol=1e-5)
    assert len(plt.get_fignums()) == 2


@pytest.mark.slow
def test_scenes_are_drawn_with_five_kinds_of_label(run):
    found = run("scenes")
    assert len(found["columns"]) == 6
    assert len(np.unique(found["labels"]["segmentation"])) >= 4
    assert len(plt.get_fignums()) == 1


@pytest.mark.slow
def test_reports_of_a_run_and_a_comparison_have_the_figures_that_are_shown(run):
    found = run("reports")
    assert not found["failures"]
    assert [row.name for row in found["comparison"].rows] == ["STL", "ew", "pcgrad"]
