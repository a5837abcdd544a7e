import pytest
import torch

from components.priors.conditioning import ConditioningStack, MapSpec, side_ratio


def test_each_map_is_embedded_and_repeated_to_the_nearest_ones_size():
    stack = ConditioningStack((MapSpec(1, 2, 3), MapSpec(2, 4, 5)), (2, 4), hidden=6, residual_hidden=4, layers=0)
    top, middle = torch.tensor([[[0, 2]]]), torch.randint(5, (1, 2, 4))
    out = stack((top, middle))
    for i in range(2):
        for j in range(4):
            expected = stack.embeddings[0].weight[top[0, 0, j // 2]] + stack.embeddings[1].weight[middle[0, i, j]]
            torch.testing.assert_close(out[0, i, j], expected)


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_upsampling_reaches_this_levels_size_and_each_code_its_own_positions(ratio: int):
    stack = ConditioningStack((MapSpec(3, 2, 5),), (3 * ratio, 2 * ratio), hidden=6, residual_hidden=4, layers=0)
    codes = torch.zeros(1, 3, 2, dtype=torch.int64)
    changed = codes.clone()
    changed[0, 1, 1] = 1
    differs = (stack((codes,)) - stack((changed,))).abs().sum(-1)[0] > 0
    assert differs.shape == (3 * ratio, 2 * ratio)
    assert differs[ratio : 2 * ratio, ratio:].all()


@pytest.mark.parametrize("lower, upper", [((6, 6), (2, 2)), ((4, 4), (8, 8)), ((8, 4), (2, 2)), ((5, 4), (2, 2))])
def test_sides_must_be_one_power_of_two_apart(lower: tuple[int, int], upper: tuple[int, int]):
    with pytest.raises(ValueError, match="one power of two times"):
        side_ratio(lower, upper)
