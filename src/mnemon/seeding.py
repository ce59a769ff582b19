"""Random numbers of their own for each purpose, from one seed."""

import hashlib

import torch


def seeded_generator(seed: int, name: str, purpose: str, device: "torch.device | str" = "cpu") -> torch.Generator:
    """A generator on `device` whose numbers depend on the seed, a name (of a concept, a task) and the purpose only."""
    digest = hashlib.sha256(f"{seed}/{name}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7]))
