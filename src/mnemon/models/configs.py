"""The configs of schedulers and autoencoders as closed sets: a field that is not understood is refused by its name,
since a base that is read wrongly is trained and sampled wrongly without a word."""

import inspect
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mnemon.errors import MnemonError
from mnemon.models.schedulers import SPACINGS

DIFFUSIONS = frozenset(
    {
        "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler", "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler", "DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler",
        "PNDMScheduler", "SASolverScheduler", "TCDScheduler", "UniPCMultistepScheduler",
    }
)  # fmt: skip
"""Schedulers whose noise is DDPM's; they differ in how they sample, and mnemon samples by DDIM or DPM-Solver++."""
NOISE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr", "set_alpha_to_one", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio",
    "sample_max_value",
)  # fmt: skip
SPACING = ("timestep_spacing", "steps_offset")
"""What is read of them, with their class's own default where the config does not say it."""
DIFFUSION_FIELDS = {
    *NOISE, *SPACING, "clip_sample", "timestep_type", "use_flow_sigmas",
    # How the checkpoint's own sampler goes about it:
    "algorithm_type", "corrector_order", "disable_corrector", "euler_at_final", "final_sigmas_type", "flow_shift",
    "interpolation_type", "lambda_min_clipped", "lower_order_final", "original_inference_steps", "predict_x0",
    "predictor_order", "shift_terminal", "sigma_max", "sigma_min", "skip_prk_steps", "solver_order", "solver_p",
    "solver_type", "tau_func", "time_shift_type", "timestep_scaling", "use_beta_sigmas", "use_dynamic_shifting",
    "use_exponential_sigmas", "use_karras_sigmas", "use_lu_lambdas", "variance_type",
}  # fmt: skip
FLOW = "FlowMatchEulerDiscreteScheduler"
DIFFUSION_VALUES: dict[str, Collection[Any]] = {
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "timestep_spacing": SPACINGS,
    "timestep_type": ("discrete",),
    "use_flow_sigmas": (False,),
}
FLOW_FIELDS = {
    "num_train_timesteps", "shift", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len",
    "max_image_seq_len", "invert_sigmas", "shift_terminal", "use_karras_sigmas", "use_exponential_sigmas",
    "use_beta_sigmas", "time_shift_type", "stochastic_sampling",
}  # fmt: skip
FLOW_VALUES: dict[str, Collection[Any]] = {"invert_sigmas": (False,), "stochastic_sampling": (False,)}
AUTOENCODER_FIELDS = {
    "scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast", "sample_size",
    # Its layers, which its class makes:
    "act_fn", "attn_scales", "base_dim", "batch_norm_eps", "batch_norm_momentum", "block_out_channels",
    "decoder_block_out_channels", "dim_mult", "down_block_types", "dropout", "in_channels", "input_channels",
    "latent_channels", "layers_per_block", "mid_block_add_attention", "norm_num_groups", "num_res_blocks",
    "out_channels", "patch_size", "temperal_downsample", "up_block_types", "use_post_quant_conv", "use_quant_conv",
    "z_dim",
}  # fmt: skip
UNET_VALUES: dict[str, Collection[Any]] = {
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim_type": (None,),
    "addition_embed_type": (None, "text_time"),
    "time_cond_proj_dim": (None,),
}
"""Inputs of a U-Net beside text, size and crop."""


def check_scheduler_class(kinds: Sequence[str], base: str) -> None:
    """Refuse a scheduler whose class, the first of `kinds`, is none that mnemon knows and has none among its parents.

    Raises:
        MnemonError: as said; the message names the class, its file and a way out.
    """
    if not {*DIFFUSIONS, FLOW}.intersection(kinds):
        raise MnemonError(
            f"'{_file(base, 'scheduler')}' asks for {kinds[0]}, a kind of noise that mnemon does not know: the base "
            "would be trained and sampled on a wrong schedule. Choose another checkpoint; supported are the schedulers "
            f"of DDPM's noise (DDIM, Euler, DPM-Solver, ...) and {FLOW}."
        )


def check_noise(config: Mapping[str, Any], file: str) -> None:
    """Refuse timesteps and betas that are no schedule, before diffusers computes with them.

    Args:
        config: of a scheduler; what it leaves out is its class's default.
        file: the config's, for errors.

    Raises:
        MnemonError: the number of timesteps is no whole number above 0, betas are not in 0..1, or they do not agree.
    """
    count, betas = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    if type(count) is not int or count < 1:
        raise MnemonError(f"'{file}' has num_train_timesteps = {count!r}: set it to a whole number, such as 1000.")
    if betas is not None:
        if not isinstance(betas, list | tuple) or not all(map(_is_beta, betas)) or not any(betas):
            raise MnemonError(f"'{file}' has trained_betas that are no list of numbers from 0 to 1: mend it, or null.")
        if len(betas) != count:
            raise MnemonError(
                f"'{file}' has {len(betas)} trained_betas for {count} num_train_timesteps: make them agree."
            )
    elif config.get("beta_schedule") in ("linear", "scaled_linear"):
        for field in ("beta_start", "beta_end"):
            if field in config and not (_is_beta(config[field]) and config[field]):
                raise MnemonError(
                    f"'{file}' has {field} = {config[field]!r}, where a number above 0, at most 1, is expected: Stable "
                    "Diffusion has 0.00085 and 0.012."
                )


def _is_beta(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def check_diffusion(scheduler: Any, base: str) -> None:
    """Refuse a scheduler whose noise is none that `Diffusion` knows; `base` is the base's name.

    Raises:
        MnemonError: the class, a field or its value is not understood; the message names it, its file and a way out.

    Warns:
        UserWarning: a field that the scheduler's class does not know either is ignored.
    """
    file, config = _file(base, "scheduler"), scheduler.config
    check_scheduler_class([kind.__name__ for kind in type(scheduler).__mro__], base)
    _check(config, type(scheduler), file, DIFFUSION_FIELDS, DIFFUSION_VALUES)
    check_noise(config, file)
    offset = config.get("steps_offset", 0)
    if not isinstance(offset, int) or offset < 0:
        raise MnemonError(f"'{file}' has steps_offset = {offset!r}, which leads below timestep 0: set it to 0 or 1.")
    if config.get("rescale_betas_zero_snr") and config["prediction_type"] == "epsilon":
        raise MnemonError(
            f"'{file}' has rescale_betas_zero_snr = true with prediction_type = 'epsilon': the last timestep is noise "
            "alone, and a prediction of the noise says nothing of the image there. Set prediction_type to what the "
            "model was trained with, such as 'v_prediction', or rescale_betas_zero_snr to false."
        )


def check_flow(scheduler: Any, base: str, dynamic_shifting: bool = True) -> None:
    """As `check_diffusion` for a flow; `dynamic_shifting`: whether the family shifts by the image's size."""
    values = FLOW_VALUES if dynamic_shifting else {**FLOW_VALUES, "use_dynamic_shifting": (False,)}
    _check(scheduler.config, type(scheduler), _file(base, "scheduler"), FLOW_FIELDS, values)


def check_autoencoder(vae: Any, base: str, kind: str) -> None:
    """As `check_diffusion` for an autoencoder, of which the family reads the class `kind`."""
    file, config = _file(base, "vae"), vae.config
    if type(vae).__name__ != kind:
        raise MnemonError(
            f"'{file}' asks for {type(vae).__name__}, but mnemon reads this kind of base with {kind}: put the "
            "autoencoder that the model was trained with there."
        )
    _check(config, type(vae), file, AUTOENCODER_FIELDS, {})
    mean, std = (config.get(field) for field in ("latents_mean", "latents_std"))
    channels = config.get("latent_channels", config.get("z_dim"))
    if (mean, std) != (None, None) and (mean is None or std is None or not len(mean) == len(std) == channels):
        raise MnemonError(
            f"'{file}' has latents_mean = {mean!r} and latents_std = {std!r} for {channels} channels of latents: give "
            "a number of each for every channel, or null for both."
        )
    scale = config.get("scaling_factor", 1)
    if not isinstance(scale, int | float) or not scale:
        raise MnemonError(f"'{file}' has scaling_factor = {scale!r}, by which latents are divided: give its number.")
    if 0 in (std or ()):
        raise MnemonError(f"'{file}' has 0 in latents_std, by which latents are divided.")


def check_unet(unet: Any, base: str) -> None:
    """Refuse a U-Net that takes more than text, size and crop, or gives more than a prediction."""
    file, config = _file(base, "unet"), unet.config
    for field, allowed in UNET_VALUES.items():
        _check_value(file, field, config.get(field), allowed)
    _check_value(file, "out_channels", config.out_channels, (config.in_channels,))


def _check(
    config: Mapping[str, Any], kind: type, file: str, known: Collection[str], allowed: Mapping[str, Collection[Any]]
) -> None:
    defaults = {name: own.default for name, own in inspect.signature(kind).parameters.items()}
    for field, value in config.items():
        if field in allowed:
            _check_value(file, field, value, allowed[field])
        elif field.startswith("_") or field in known or (field in defaults and value == defaults[field]):
            continue
        elif field in defaults:
            raise MnemonError(
                f"'{file}' has {field} = {value!r}, which mnemon does not understand: choose another checkpoint, or, "
                f"if the model does not need it, set it to {defaults[field]!r}."
            )
        else:
            warnings.warn(
                f"'{file}' has {field} = {value!r}, which {kind.__name__} does not know: it is ignored.",
                UserWarning,
                stacklevel=2,
            )


def _check_value(file: str, field: str, value: Any, allowed: Collection[Any]) -> None:
    if value not in allowed:
        supported = " or ".join(repr(one) for one in allowed)
        raise MnemonError(
            f"'{file}' has {field} = {value!r}, which mnemon does not support: choose a checkpoint with {supported}."
        )


def _file(base: str, part: str) -> str:
    return f"{base}/{part}/{'scheduler_config' if part == 'scheduler' else 'config'}.json"
