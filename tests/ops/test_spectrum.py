"""Spectra in inference mode, where torch does not count what is written."""

import torch

from dnasm.ops import fftconv, spectrum


def test_a_spectrum_made_in_inference_mode_is_used_there() -> None:
    u, k = torch.randn(2, 3, 50), torch.randn(3, 50)
    expected = fftconv(u, k)
    with torch.inference_mode():
        own = torch.randn(3, 50).copy_(k)
        torch.testing.assert_close(fftconv(u, spectrum(own, 50)), expected)
        torch.testing.assert_close(fftconv(u, spectrum(k, 50)), expected)
