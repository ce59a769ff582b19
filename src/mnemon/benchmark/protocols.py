"""The protocols of a comparison: which settings the methods have that are compared."""

from collections.abc import Mapping
from typing import Any

from mnemon.errors import MnemonError
from mnemon.methods import method_from, method_settings, method_with
from mnemon.methods.base import Method

PAPER, LEVEL = "paper", "level"
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    PAPER: {},
    LEVEL: {
        "steps": 100,
        "batch_size": 8,
        "use_class_noun": True,
        "num_vectors": 3,
        "token_init": "class_noun",
        "token_lr": 5e-3,
        "class_vector": False,
        "rare_words": False,
        "rank": 16,
    },
}
"""What a protocol sets, in every method that has the setting.

`paper`: each method as its paper states, where it states it, else as chosen here: its defaults. `level`: prompts,
steps, batch, rank, and number, start and learning rate of the embeddings are the same for all, and only the mechanism
differs; the learning rates of a mechanism stay the method's own. (`joint` takes the steps for each of its concepts.)
"""


def method_by(protocol: str, name: str) -> Method:
    """The method `name` with the settings of the protocol.

    Raises:
        MnemonError: there is no such protocol or method.
    """
    if protocol not in PROTOCOLS:
        raise MnemonError(f"There is no protocol '{protocol}': choose from {', '.join(PROTOCOLS)}.")
    method = method_from(name)
    own = method_settings(method)
    return method_with(method, {key: value for key, value in PROTOCOLS[protocol].items() if key in own})
