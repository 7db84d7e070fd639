"""The GPU benchmark, on the processor: each side trains, the reference by its method, and without a card it says so."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "learning"
CPU = torch.device("cpu")


@pytest.fixture
def benchmark(monkeypatch):
    """A function that imports a script by its name; afterwards they are no modules of this process any more."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    names = {path.stem for path in BENCHMARKS.glob("*.py")} - {*sys.modules}
    yield importlib.import_module
    for name in names & {*sys.modules}:
        del sys.modules[name]


@pytest.fixture
def coloured() -> tuple[torch.Tensor, torch.Tensor]:
    """160 images, (n, 32, 32, 3), that are bright in the channel of their class, and the classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 120, (160, 32, 32, 3), dtype=torch.uint8, generator=generator)
    labels = torch.arange(160) % 3
    pixels[torch.arange(160), :, :, labels] += 100
    return pixels, labels


def test_the_reference_learns_and_says_how_far_it_came(benchmark, coloured):
    trained = benchmark("airbench_loop").Trained(*coloured, CPU, widths=(8, 16, 16), epochs=15)
    assert trained.accuracy(*coloured) > 95
    assert trained.accuracy(coloured[0], (coloured[1] + 1) % 3) < 5
    assert trained.seconds > 0


def test_an_image_is_cut_out_where_it_was_drawn_and_mirrored(benchmark):
    padded = torch.arange(2 * 36 * 36).view(2, 36, 36, 1)
    top, left, mirrored = torch.tensor([0, 4]), torch.tensor([1, 3]), torch.tensor([False, True])
    first, second = benchmark("airbench_loop")._cut(padded, top, left, mirrored)
    assert first.tolist() == padded[0, 0:32, 1:33].permute(2, 0, 1).tolist()
    assert second.tolist() == padded[1, 4:36, 3:35].flip(1).permute(2, 0, 1).tolist()


@pytest.mark.parametrize("side", ["report", "auto", "airbench94", "fast94"])
def test_each_side_trains_a_few_random_images(benchmark, side):
    value, accuracy = benchmark("gpu").MEASURED[side](CPU, 4, 0)
    assert value > 0
    assert accuracy in (0, 25, 50, 75, 100)


@pytest.mark.parametrize(
    ("words", "told"), [([], "there is no CUDA GPU that torch can use"), (["--device", "cpu"], "--device cpu is there")]
)
def test_without_a_card_it_says_what_can_be_done(benchmark, monkeypatch, words, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    with pytest.raises(SystemExit, match=f"^{told}.*--device cpu --images 50"):
        benchmark("gpu").main()
