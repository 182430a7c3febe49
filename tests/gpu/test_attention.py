"""What the CPU cannot show: kernels of CUDA agree with the reference, forward and backward.

    pytest tests/gpu

Everything here is skipped, and says so, where there is no GPU.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no GPU: CUDA is not available", allow_module_level=True)

from stackbuild.train.attention import Mask, attend  # noqa: E402
from tests.train.worlds import new, row_of_tokens, tiny  # noqa: E402


def packed() -> object:
    """Three documents and padding in a row of 512, another row of one."""
    first = torch.tensor([0] * 200 + [1] * 56 + [2] * 200 + [-1] * 56)
    return torch.stack((first, torch.zeros(512, dtype=torch.int64))).int().cuda()


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("window", [None, 100])
def test_kernels_of_cuda_agree_forward_and_backward(window, documents, heads):
    mask = Mask(window=window, documents=packed() if documents else None)
    given = [torch.randn(2, count, 512, 64, device="cuda", requires_grad=True) for count in (8, heads, heads)]
    right = attend(*given, mask, "eager")
    slope = torch.randn_like(right)
    right_grads = torch.autograd.grad(right, given, slope)
    for kernel in ("sdpa", "flex"):
        out = attend(*given, mask, kernel)
        torch.testing.assert_close(out, right, atol=3e-3, rtol=0)  # products in TF32 inside the kernels
        for grad, right_grad in zip(torch.autograd.grad(out, given, slope), right_grads, strict=True):
            torch.testing.assert_close(grad, right_grad, atol=2e-2, rtol=0)


def test_the_model_on_cuda_is_the_model_on_the_cpu():
    config = tiny(hidden=128, heads=2, kv_heads=1, window=100, max_positions=512)
    tokens, documents = row_of_tokens(2, 513, 97), packed()
    losses = []
    for device in ("cpu", "cuda"):
        model = new(config).to(device)
        row = tokens.to(device)
        losses.append(float(model.loss(row[:, :-1], row[:, 1:], documents=documents.to(device)).sum))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
