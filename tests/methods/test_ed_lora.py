import torch

from mnemon.methods import Start
from mnemon.methods.cidm import Cidm
from tests.contract.table import learn
from tests.tiny import tiny_sd_base, tiny_sdxl_base


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_token_is_a_random_vector_and_the_noun_for_every_layer() -> None:
    base = tiny_sdxl_base()
    start = Cidm().init_embeddings(Start("rex", "dog", base, [], generator()))
    class_noun = base.word_embeddings("dog")
    for encoder, (width, *_) in base.embedding_statistics().items():
        assert start[encoder].shape == (len(base.cross_attention_layers()), 2, width)
        assert torch.equal(start[encoder][:, 1], class_noun[encoder].expand(len(base.cross_attention_layers()), -1))
        assert not torch.allclose(start[encoder][0, 0], class_noun[encoder], atol=1e-3)
    nameless = Cidm().init_embeddings(Start("rex", None, base, [], generator()))
    assert torch.equal(nameless["text_encoder"][:, 0], start["text_encoder"][:, 0])
    assert not torch.equal(nameless["text_encoder"][:, 1], start["text_encoder"][:, 1])


def test_every_layer_learns_vectors_of_its_own() -> None:
    tokens = learn(tiny_sd_base(), Cidm(rank=2, steps=2, batch_size=2), "rex").tokens["text_encoder"]
    assert len(tokens[:, 0].unique(dim=0)) == len(tokens[:, 1].unique(dim=0)) == len(tokens)


def test_the_token_stands_for_the_noun_too() -> None:
    assert Cidm().prompt_name("rex", "dog") == "<rex>"
