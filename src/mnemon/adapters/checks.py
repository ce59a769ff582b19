"""Do these deltas fit this model?"""

from collections.abc import Mapping

from torch import nn

from mnemon.adapters.delta import Delta
from mnemon.errors import MnemonError


def check_fit(sites: Mapping[str, nn.Linear], deltas: Mapping[str, Delta]) -> None:
    """Refuse deltas for layers that the model lacks or whose weights have another shape.

    Raises:
        MnemonError: naming the site.
    """
    for site, delta in deltas.items():
        if site not in sites:
            raise MnemonError(f"The base has no layer '{site}': these changes were learned on another base.")
        layer = sites[site]
        expected = (layer.out_features, layer.in_features)
        if delta.shape != expected:
            raise MnemonError(
                f"The change of '{site}' has shape {delta.shape}, its weight {expected}: "
                "these changes were learned on another base."
            )
