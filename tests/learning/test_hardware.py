"""Device, precision and threads: chosen, refused, told."""

import pytest
import torch

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.learning import hardware


class TestHardware:
    def test_precision_is_what_is_asked_for_or_what_is_fast(self, monkeypatch):
        cpu = torch.device("cpu")
        assert hardware.choose_precision(resolve({"precision": "bfloat16"}), cpu) == torch.bfloat16
        assert hardware.choose_precision(resolve({"precision": "float32"}), cpu) == torch.float32
        for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
            monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
            assert hardware.choose_precision(resolve({}), cpu) == expected

    def test_a_device_that_is_not_there_is_refused(self):
        if torch.backends.mps.is_available():
            pytest.skip("this machine has it")
        with pytest.raises(ConfigurationError, match="--device: mps is not available here"):
            hardware.choose_device(resolve({"device": "mps"}))
