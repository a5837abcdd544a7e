import pytest
import torch

from components.priors.causal import CausalConvolution, gate, shift_down, shift_right


def test_gate_is_tanh_of_the_first_half_times_sigmoid_of_the_second():
    x = torch.randn(2, 3, 10, dtype=torch.float64)
    expected = (1 - 2 / (torch.exp(2 * x[..., :5]) + 1)) / (1 + torch.exp(-x[..., 5:]))
    torch.testing.assert_close(gate(x), expected)


def test_shifts_move_by_one_and_fill_with_zeros():
    x = torch.arange(1.0, 7).view(1, 2, 3, 1)
    assert shift_down(x).flatten().tolist() == [0, 0, 0, 1, 2, 3]
    assert shift_right(x).flatten().tolist() == [0, 1, 2, 0, 4, 5]


@pytest.mark.parametrize("above, left, right", [(2, 2, 2), (1, 1, 1), (0, 2, 0)])
def test_convolution_is_the_loop_over_its_taps(above: int, left: int, right: int):
    layer = CausalConvolution(2, 3, above=above, left=left, right=right).double()
    x, expected = torch.randn(1, 4, 5, 2, dtype=torch.float64), torch.zeros(1, 4, 5, 3, dtype=torch.float64)
    for i in range(4):
        for j in range(5):
            for a in range(-above, 1):
                for b in range(-left, right + 1):
                    if i + a >= 0 and 0 <= j + b < 5:
                        expected[0, i, j] += layer.weight[:, :, a + above, b + left] @ x[0, i + a, j + b]
    torch.testing.assert_close(layer(x), expected)
