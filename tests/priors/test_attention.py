import torch

from components.priors.attention import CausalAttention


def test_first_position_reads_the_start_alone():
    layer = CausalAttention(8, 2).double()
    x, embedded = torch.randn(2, 1, 2, 3, 8, dtype=torch.float64)
    expected = x[:, 0, 0] + layer.out(layer.start[8:])
    torch.testing.assert_close(layer(x, embedded)[:, 0, 0], expected)


def test_attention_equals_the_loop_over_positions_and_heads():
    layer, width = CausalAttention(8, 2).double(), 4
    x, embedded = torch.randn(2, 1, 2, 3, 8, dtype=torch.float64)
    flat = layer.norm(x).view(6, 8)
    query, key, value = layer.project(flat).chunk(3, dim=-1)
    more_key, more_value = layer.codes(embedded.view(6, 8)).chunk(2, dim=-1)
    key = torch.cat((layer.start[None, :8], key + more_key))
    value = torch.cat((layer.start[None, 8:], value + more_value))
    expected = torch.empty(6, 8, dtype=torch.float64)
    for p in range(6):
        for head in (slice(0, width), slice(width, 8)):
            weights = torch.softmax(key[: p + 1, head] @ query[p, head] / width**0.5, dim=0)
            expected[p, head] = weights @ value[: p + 1, head]
    torch.testing.assert_close(layer(x, embedded), x + layer.out(expected).view(x.shape))


def test_dropped_weights_average_to_the_weights_themselves():
    layer = CausalAttention(8, 2, dropout=0.3).double()
    x, embedded = torch.randn(2, 1, 2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    many = layer(x.expand(20000, -1, -1, -1), embedded.expand(20000, -1, -1, -1))
    error = many.std(dim=0) / 20000**0.5
    assert (many.std(dim=0) > 0.01).any(-1).all()  # every position has weights that are dropped, the first its only one
    expected = layer.eval()(x, embedded)[0]
    assert ((many.mean(dim=0) - expected).abs() < 5 * error + 1e-12).all()
