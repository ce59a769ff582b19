import pytest
import torch
from torch import Tensor

from mnemon.adapters import KINDS, Delta, Dense, LowRank, MaskedLowRank, Sparse, load_deltas, save_deltas, sum_deltas
from mnemon.errors import MnemonError

D_OUT, D_IN, RANK = 5, 7, 2  # 35 entries: no whole number of bytes


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def mask() -> Tensor:
    return normal(D_OUT, D_IN) > 0


def kinds() -> list[Delta]:
    up, down = normal(D_OUT, RANK), normal(RANK, D_IN)
    return [
        LowRank(up, down, scale=0.3),
        MaskedLowRank(up, down, mask()),
        Sparse(mask(), normal(int(mask().sum()))),
        Dense(normal(D_OUT, D_IN)),
    ]


def test_the_registry_names_every_kind() -> None:
    assert [type(delta) for delta in kinds()] == list(KINDS.values())
    assert all(cls.kind == kind for kind, cls in KINDS.items())


@pytest.mark.parametrize("delta", kinds(), ids=KINDS)
def test_a_delta_acts_as_its_matrix(delta: Delta) -> None:
    inputs = normal(2, 3, D_IN)
    assert delta.shape == delta.matrix().shape == (D_OUT, D_IN)
    torch.testing.assert_close(delta(inputs), inputs @ delta.matrix().T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("delta", kinds(), ids=KINDS)
def test_a_stored_delta_comes_back_bit_for_bit(delta: Delta, dtype: torch.dtype) -> None:
    delta = type(delta).from_state(
        {k: t.to(dtype) if t.dtype == torch.float32 else t for k, t in delta.state().items()}
    )
    (again,) = load_deltas(save_deltas({"mid.to_k": delta})).values()
    assert type(again) is type(delta)
    assert torch.equal(again.matrix(), delta.matrix()) and delta.matrix().dtype == torch.float32
    assert again.stored_bytes == delta.stored_bytes
    assert delta(normal(2, D_IN).to(dtype)).dtype == dtype


def test_what_the_kinds_are() -> None:
    up, down = normal(D_OUT, RANK), normal(RANK, D_IN)
    torch.testing.assert_close(LowRank(up, down, 0.5).matrix(), 0.5 * up @ down)
    torch.testing.assert_close(MaskedLowRank(up, down, mask()).matrix(), torch.where(mask(), up @ down, 0.0))
    dense = torch.where(mask(), normal(D_OUT, D_IN), 0.0)
    assert torch.equal(Sparse.from_matrix(dense).matrix(), dense)


def test_a_mask_costs_one_bit_an_entry() -> None:
    low_rank = MaskedLowRank(torch.zeros(64, 4), torch.zeros(4, 96), torch.ones(64, 96))
    assert low_rank.stored_bytes == 4 * 4 * (64 + 96) + 64 * 96 // 8


def test_sums_are_sums_of_products_in_order() -> None:
    first, second, third = kinds()[:3]
    total = sum_deltas([{"k": first, "v": second}, {}, {"k": third}])
    assert list(total) == ["k", "v"]
    assert torch.equal(total["k"].matrix(), first.matrix() + third.matrix())
    assert torch.equal(total["v"].matrix(), second.matrix())
    assert sum_deltas([]) == {}


def test_a_sum_does_not_share_memory_with_what_was_added() -> None:
    dense = Dense(torch.ones(2, 2))
    sum_deltas([{"k": dense}])["k"].values.zero_()
    assert dense.values.sum() == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("k.low_rank.down"), "'k.low_rank.down' is missing"),
        (lambda t: t.update({"k.low_rank.extra": torch.ones(1)}), "'k.low_rank.extra' is unknown"),
        (lambda t: t.update({"k.low_rang.up": torch.ones(1)}), "'k.low_rang.up' is not"),
        (lambda t: t.update({"loose": torch.ones(1)}), "'loose' is not"),
        (lambda t: t.update({"k.low_rank.down": torch.ones(3, 4)}), r"'k.low_rank.down' \(3, 4\)"),
        (lambda t: t.update({"k.low_rank.up": torch.full((5, 2), torch.nan)}), "'k.low_rank.up' holds values"),
        (lambda t: t.update({"k.dense.values": torch.ones(5, 7)}), "'k' has two changes"),
        (lambda t: t.update({"m.masked_low_rank.mask": torch.ones(3, dtype=torch.uint8)}), "'m.masked_low_rank.mask'"),
        (lambda t: t.update({"m.masked_low_rank.mask": torch.ones(5)}), "'m.masked_low_rank.mask'"),
        (lambda t: t.update({"s.sparse.values": torch.ones(2)}), "'s.sparse.values'"),
    ],
)
def test_a_bad_tensor_is_named(change, message: str) -> None:
    low_rank, masked, sparse, _ = kinds()
    tensors = save_deltas({"k": low_rank, "m": masked, "s": sparse})
    change(tensors)
    with pytest.raises(MnemonError, match=message):
        load_deltas(tensors)
