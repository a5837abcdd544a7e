import pytest
import torch

from components.priors.attention import CausalAttention
from components.priors.causal import GatedBlock
from components.priors.conditioning import ConditioningBlock, MapSpec
from components.priors.config import PriorArchitecture
from components.priors.model import OutputBlock, Prior


def influences(prior: Prior, i: int, j: int) -> torch.Tensor:
    """(h, w) of bool: whose embedded codes have a gradient at the logits of (i, j)."""
    leaves: list[torch.Tensor] = []

    def capture(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[0]

    handle = prior.codes.register_forward_hook(capture)
    logits = prior(torch.randint(7, (1, *prior.shape)), torch.tensor([1]), ())[0, i, j]
    handle.remove()
    (gradient,) = torch.autograd.grad(logits @ torch.randn_like(logits), leaves)
    return gradient[0].abs().sum(-1) > 0


@pytest.mark.parametrize("shape", [(5, 6), (7, 4), (1, 5), (5, 1)])
@pytest.mark.parametrize("layers, filter_size", [(1, 3), (2, 3), (3, 3), (1, 5), (2, 5)])
def test_each_position_depends_on_every_earlier_one_within_reach_and_no_other(build_prior, shape, layers, filter_size):
    prior = build_prior(shape, hidden=32, layers=layers, filter_size=filter_size, output_layers=1).double()
    reach = layers * (filter_size // 2)
    for i in range(shape[0]):
        for j in range(shape[1]):
            expected = [
                [
                    (1 <= i - a <= reach + 1 and abs(j - b) <= reach) or (a == i and 1 <= j - b <= reach + 1)
                    for b in range(shape[1])
                ]
                for a in range(shape[0])
            ]
            assert influences(prior, i, j).tolist() == expected


@pytest.mark.parametrize("shape", [(4, 6), (6, 3), (1, 7)])
@pytest.mark.parametrize("layers, attention", [(1, 1), (2, 1), (2, 2)])
def test_with_attention_each_position_depends_on_every_earlier_one_at_all(build_prior, shape, layers, attention):
    prior = build_prior(shape, hidden=32, layers=layers, attention_layers=attention).double()
    for position in range(shape[0] * shape[1]):
        expected = torch.arange(shape[0] * shape[1]).view(shape) < position
        assert torch.equal(influences(prior, *divmod(position, shape[1])), expected)


def test_every_position_depends_on_the_class_and_on_each_map_above(build_prior):
    specs = (MapSpec(1, 1, 3), MapSpec(2, 2, 4))
    prior = build_prior((4, 4), specs, conditioning_layers=2)
    codes, above = torch.randint(7, (1, 4, 4)), [torch.zeros(1, *spec[:2], dtype=torch.int64) for spec in specs]
    base = prior(codes, torch.tensor([0]), above)
    for label, maps in ((1, above), (0, [above[0] + 1, above[1]]), (0, [above[0], above[1] + 1])):
        assert (prior(codes, torch.tensor([label]), maps) != base).any(-1).all()


@pytest.mark.parametrize(
    "placement, layers, attention, blocks",
    [
        ("end", 20, 4, [5, 10, 15, 20]),  # section 3.2: after every five layers
        ("end", 20, 1, [20]),
        ("end", 7, 2, [3, 7]),
        ("end", 3, 3, [1, 2, 3]),
        ("end", 20, 0, []),
        ("middle", 20, 4, [3, 8, 13, 18]),
        ("middle", 7, 2, [2, 6]),
    ],
)
def test_attention_follows_one_block_of_each_of_equal_runs(placement, layers, attention, blocks):
    sizes = {"hidden": 8, "residual_hidden": 4, "layers": layers, "attention_layers": attention}
    architecture = PriorArchitecture(**sizes, attention_placement=placement)
    with torch.device("meta"):
        prior = Prior(architecture, shape=(32, 32), codebook_size=512, classes=1000, above=())
    order: list[str] = []
    for number, block in enumerate(prior.blocks, start=1):
        block.register_forward_hook(lambda *_, number=number: order.append(str(number)))
    for layer in prior.attention.values():
        layer.register_forward_hook(lambda *_: order.append(f"after {order[-1]}"))
    prior(*(torch.zeros(shape, dtype=torch.int64, device="meta") for shape in ((1, 32, 32), (1,))), ())
    assert [name for name in order if name.startswith("after")] == [f"after {block}" for block in blocks]


def test_the_paper_s_placement_is_the_default_and_others_are_refused():
    sizes = {"hidden": 8, "residual_hidden": 4, "layers": 4, "attention_layers": 1}
    assert PriorArchitecture(**sizes).attention_placement == "end"
    with pytest.raises(ValueError, match="attention_placement must be 'end' or 'middle', got 'start'"):
        PriorArchitecture(**sizes, attention_placement="start")


# --- dropout ----------------------------------------------------------------------------------------------------------

DROPPING = [GatedBlock, CausalAttention, ConditioningBlock, OutputBlock]
ALL_PARTS = {"conditioning_layers": 1, "attention_layers": 1, "output_layers": 1}


def with_dropout_only_in(prior: Prior, kind: type) -> Prior:
    """`prior` with dropout switched off in all parts but those of `kind`."""
    for part in prior.modules():
        if isinstance(part, CausalAttention) and kind is not CausalAttention:
            part.dropout = 0.0
        elif type(part) in DROPPING and type(part) is not kind:
            part.dropout.p = 0.0
    return prior


@pytest.mark.parametrize("kind", DROPPING)
def test_dropout_acts_in_each_kind_of_part_only_while_training(build_prior, kind):
    prior = with_dropout_only_in(build_prior((4, 4), (MapSpec(2, 2, 4),), dropout=0.5, **ALL_PARTS), kind)
    inputs = (torch.randint(7, (2, 4, 4)), torch.tensor([0, 1]), [torch.randint(4, (2, 2, 2))])
    plain = build_prior((4, 4), (MapSpec(2, 2, 4),), **ALL_PARTS)(*inputs)
    assert torch.equal(prior(*inputs), plain) and torch.equal(prior(*inputs), plain)
    prior.train()
    assert not torch.equal(prior(*inputs), prior(*inputs))
    torch.manual_seed(3)
    drawn = prior(*inputs)
    torch.manual_seed(3)
    assert torch.equal(prior(*inputs), drawn)


def test_a_part_whose_activations_are_all_dropped_adds_nothing_to_its_residual():
    x, embedded, nearly_all = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8), 1 - 1e-9
    v = torch.randn_like(x)
    gated = GatedBlock(8, 6, filter_size=3, dropout=nearly_all)
    assert all(torch.equal(*pair) for pair in zip(gated(v, x, embedded), (v, x), strict=True))
    assert torch.equal(CausalAttention(8, 2, dropout=nearly_all)(x, embedded), x)
    assert torch.equal(OutputBlock(8, 6, dropout=nearly_all)(x), x)
    conditioning, maps = ConditioningBlock(8, 6, dropout=nearly_all), x.permute(0, 3, 1, 2)
    torch.testing.assert_close(conditioning(maps), maps + conditioning.out.bias.view(1, 8, 1, 1))


# --- gradients and modes ----------------------------------------------------------------------------------------------


def test_every_parameter_gets_a_gradient(build_prior):
    prior = build_prior((4, 4), (MapSpec(2, 2, 4),), conditioning_layers=1, attention_layers=1, output_layers=1)
    prior(torch.randint(7, (2, 4, 4)), torch.tensor([0, 3]), [torch.randint(4, (2, 2, 2))]).square().sum().backward()
    assert [name for name, weight in prior.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.slow
def test_compiles_whole_and_equals_eager(build_prior):
    prior = build_prior((4, 4), (MapSpec(2, 2, 4),), conditioning_layers=1, attention_layers=1, output_layers=1)
    inputs = (torch.randint(7, (2, 4, 4)), torch.tensor([0, 3]), [torch.randint(4, (2, 2, 2))])
    compiled = torch.compile(prior, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), prior(*inputs))
    compiled(*inputs).sum().backward()


def test_bfloat16_autocast_stays_close_to_float32(build_prior):
    prior = build_prior((4, 4), (MapSpec(2, 2, 4),), conditioning_layers=1, attention_layers=1, output_layers=1)
    inputs = (torch.randint(7, (8, 4, 4)), torch.arange(8) % 4, [torch.randint(4, (8, 2, 2))])
    plain = prior(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = prior(*inputs)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - plain).abs().max() < 0.05 * plain.abs().max()


CODES, LABELS, ABOVE = torch.zeros(2, 4, 4).long(), torch.tensor([0, 3]), torch.zeros(2, 2, 2).long()


@pytest.mark.parametrize(
    "labels, above, codes, message",
    [
        (LABELS, [ABOVE], CODES + 7, "the code map must hold codes from 0 to 6, got torch.int64 values from 7 to 7"),
        (LABELS, [ABOVE], CODES - 1, "from 0 to 6"),
        (LABELS, [ABOVE], CODES[:, :3], r"shape \(images, height, width\) = \(2, 4, 4\), got \(2, 3, 4\)"),
        (LABELS, [ABOVE], CODES.int(), "must be int64"),
        (LABELS, [ABOVE + 4], CODES, "code map 0 above must hold codes from 0 to 3"),
        (LABELS, [ABOVE[:1]], CODES, r"= \(2, 2, 2\), got \(1, 2, 2\)"),
        (LABELS, [], CODES, "needs the 1 code maps of the levels above it, coarsest first, got 0"),
        (
            LABELS + 1,
            [ABOVE],
            CODES,
            "labels must be integers from 0 to 2, or 3 for 'no class'; got torch.int64 values",
        ),
        (LABELS - 1, [ABOVE], CODES, "values from -1 to 2"),
        (LABELS[:0], [ABOVE[:0]], CODES[:0], "at least one image"),
        (LABELS[:, None], [ABOVE], CODES, "in a vector"),
    ],
)
def test_bad_inputs_are_named(build_prior, labels, above, codes, message):
    prior = build_prior((4, 4), (MapSpec(2, 2, 4),))
    prior.check(LABELS, [ABOVE], CODES)
    with pytest.raises(ValueError, match=message):
        prior.check(labels, above, codes)


def test_a_prior_without_classes_takes_only_no_class(build_prior):
    prior = build_prior(classes=0)
    prior.check(torch.tensor([0]), (), CODES[:1])
    with pytest.raises(ValueError, match="fitted without classes"):
        prior.check(torch.tensor([1]), (), CODES[:1])


def test_impossible_priors_are_refused(build_prior):
    with pytest.raises(ValueError, match="conditioning_layers must be 0"):
        build_prior(conditioning_layers=1)
    with pytest.raises(ValueError, match="classes must not be negative"):
        build_prior(classes=-1)
    with pytest.raises(ValueError, match="sides of at least 1"):
        build_prior((0, 4))
    with pytest.raises(ValueError, match="one power of two times"):
        build_prior((4, 4), (MapSpec(3, 3, 4),))
