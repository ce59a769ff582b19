"""The figures of a benchmark: title, formula, reading. Their values are worked out in `mnemon.evaluation.numbers`.

R[t, j] is a score of concept j after concept t was learned, N the number of concepts; x, y are unit features.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One figure of a run.

    Attributes:
        title: for the head of a column.
        formula: with the symbols of the module's docstring.
        reading: what it says, what it needs and what it does not see.
        better: which values are better; "" where neither is.
        unit: "" for a plain number, "share" for 0..1 shown in percent, else what it counts.
    """

    title: str
    formula: str
    reading: str
    better: Literal["high", "low", ""] = "high"
    unit: Literal["", "share", "bytes", "seconds", "count"] = ""


_IDENTITY = "R: identity alignment, mean cosine of a concept's drawn pictures with its references, identity features."
_END = "In the last row, all concepts in the model."

FIGURES: dict[str, Figure] = {
    "identity_alignment": Figure(
        "Identity", "(1/N) Σ_j R[N, j],  R = mean_{i,k} ⟨x_i, y_k⟩",
        f"Is it this very thing? {_END} Identity features: DINO for photographs, the judge on the world. Ranks the "
        "table.",
    ),
    "image_alignment": Figure(
        "Image", "(1/N) Σ_j R[N, j],  R = mean_{i,k} ⟨x_i, y_k⟩",
        f"CLIP-I: the same with CLIP's image features, which hold scene and kind more than the individual. {_END}",
    ),
    "text_alignment": Figure(
        "Text", "(1/N) Σ_j R[N, j],  R = mean_i ⟨x_i, z_i⟩",
        f"Plain cosine of picture i and the features z_i of its prompt in words. {_END}",
    ),
    "multi_text_alignment": Figure(
        "Text, several concepts", "mean over prompts of mean_i ⟨x_i, z_i⟩",
        "Plain cosine for prompts with two to four concepts, after the last concept.",
    ),
    "a_mmd": Figure(
        "A_mmd", "(1/N) Σ_j MMD²_u(references of j, pictures of j at N),  k(x, y) = (cos(x, y) + 1)²",
        "Unbiased, quadratic kernel, CLIP's image features at length √d, not multiplied. Around 0 is as good as "
        "photos; noisy for few pictures.",
        "low",
    ),
    "f_mmd": Figure(
        "F_mmd", "1/(N-1) Σ_{j<N} MMD²_u(pictures of j at j, pictures of j at N)",
        "Kernel and features as A_mmd. Drift since a concept was learned; none for a method that never learned. "
        "Pictures of one prompt and seed are not compared with each other, so 0 is no drift at all.",
        "low",
    ),
    "forgetting": Figure(
        "Forgetting", "1/(N-1) Σ_{j<N} (R[j, j] - R[N, j])",
        f"First minus last (Avalanche). {_IDENTITY} Needs the diagonal and the last row. What was never learned "
        "cannot be forgotten: read it beside learning.",
        "low",
    ),
    "learning_identity_first10": Figure(
        "Learned, first 10", "(1/n) Σ_{j≤n} R[j, j],  n = min(10, N)", f"Just learned. {_IDENTITY}",
    ),
    "learning_identity_last10": Figure(
        "Learned, last 10", "(1/n) Σ_{j>N-n} R[j, j],  n = min(10, N)",
        f"Beside the first ten it shows saturation. {_IDENTITY}",
    ),
    "zero_shot_drift": Figure(
        "Zero-shot drift", "(1 - mean_i ⟨x_i, y_i⟩) / 2",
        "Pictures of general prompts without a concept, bare base against the end, same prompts and seeds, CLIP's "
        "image features. Counts every change, for the worse or not.",
        "low",
    ),
    "parameters": Figure("Parameters", "trained for one concept", "All numbers that training moves.", "low", "count"),
    "bytes": Figure("Stored a concept", "mean over concepts", "Size of a concept's files.", "low", "bytes"),
    "seconds_per_concept": Figure(
        "Training a concept", "mean over concepts", "Wall time on the machine below.", "low", "seconds",
    ),
    "fusion_seconds": Figure("Fusion", "once, all concepts", "Combining all concepts; 0 for none.", "low", "seconds"),
    "clip_score": Figure(
        "Text, 2.5 convention", "(1/N) Σ_j R[N, j],  R = mean_i 2.5 · max(⟨x_i, z_i⟩, 0)",
        f"CLIPScore as Custom Diffusion and CIDM give text alignment. {_END}",
    ),
    "forgetting_image": Figure(
        "Forgetting, image", "1/(N-1) Σ_{j<N} (R[j, j] - R[N, j])", "First minus last of image alignment.", "low",
    ),
    "forgetting_from_best": Figure(
        "Forgetting, best − last", "1/(N-1) Σ_{j<N} (max_t R[t, j] - R[N, j])",
        f"mammoth, LAMDA-PILOT. {_IDENTITY} Needs every R[t, j], t ≥ j.", "low",
    ),
    "forgetting_one_step": Figure(
        "Forgetting in a step, F_N", "1/(N-1) Σ_{t=2..N} 1/(t-1) Σ_{j<t} (R[t-1, j] - R[t, j])",
        f"CODA-Prompt; several times smaller than the others. {_IDENTITY} Needs every R[t, j], t ≥ j.", "low",
    ),
    "backward_transfer": Figure(
        "Backward transfer", "1/(N-1) Σ_{j<N} (R[N, j] - R[j, j])", f"GEM: minus forgetting. {_IDENTITY}",
    ),
    "retention": Figure("Kept", "(1/N) Σ_j R[N, j] / R[j, j]", f"{_IDENTITY} The last concept counts, with 1.", "high",
        "share"),
    "learning_accuracy": Figure("Learned", "(1/N) Σ_j R[j, j]", f"The diagonal. {_IDENTITY}"),
    "identity_of_ceiling": Figure(
        "Identity of ceiling", "(1/N) Σ_j R[N, j] / c_j,  c_j = mean_{k≠l} ⟨y_k, y_l⟩",
        "Against what the references reach among themselves; not a strict bound.", "high", "share",
    ),
    "recognised": Figure(
        "Recognised", "share of pictures i of j with argmax_k ⟨x_i, m_k⟩ = j",
        f"Nearest concept by identity features, m_k the mean reference of k at unit length. Chance is 1/N. {_END}",
        "high", "share",
    ),
    "kid": Figure(
        "Kernel distance, cubic", "(1/N) Σ_j MMD²_u with k(x, y) = (cos(x, y) + 1)³",
        "KID's formula on CLIP's image features of few pictures: not comparable to published KID.", "low",
    ),
    "mmd_just_learned": Figure(
        "MMD just learned", "(1/N) Σ_j MMD²_u(references of j, pictures of j at j)",
        "As A_mmd, of the diagonal: plasticity.", "low",
    ),
    "general_text_alignment": Figure(
        "Text, general prompts", "mean_i ⟨x_i, z_i⟩", "Prompts without a concept, after the last concept.",
    ),
    "multi_identity_alignment": Figure(
        "Identity, several concepts", "mean over prompts of mean_{c in prompt} mean_{i,k} ⟨x_i, y_ck⟩",
        "Whole pictures against each of their concepts, so lower than for one concept.",
    ),
    "multi_image_alignment": Figure(
        "Image, several concepts", "mean over prompts of mean_{c in prompt} mean_{i,k} ⟨x_i, y_ck⟩",
        "The same with CLIP.",
    ),
    "noun_accuracy": Figure(
        "Noun shown", "share of pictures whose noun is the prompt's", f"By the world's classifier. {_END}",
        "high", "share",
    ),
    "background_accuracy": Figure(
        "Background shown", "share of pictures whose background is the prompt's", f"By the world's classifier. {_END}",
        "high", "share",
    ),
    "general_attribute_accuracy": Figure(
        "General attributes", "mean of the shares of noun, colour, pattern, background shown as said",
        "General prompts after the last concept, by the world's classifier: what the base still draws exactly.", "high",
        "share",
    ),
    "picture_error": Figure(
        "± of a cell", "mean_j t · s_j / √n", "Half of a 95 % interval of one R[N, j] from its n pictures.", "",
    ),
    "fusion_peak_bytes": Figure(
        "Fusion, peak memory", "max_τ m(τ) - m(0), τ while fusing",
        "Memory m that fusing takes anew: of the GPU, else of the whole process.", "low", "bytes",
    ),
    "draw_seconds_per_picture": Figure(
        "Drawing a picture", "seconds / pictures, last row", "Wall time with all concepts in the model.", "low",
        "seconds",
    ),
    "peak_memory_bytes": Figure(
        "Peak memory", "max_τ m(τ), τ in the run", "Memory m of the GPU, else of the whole process.", "low", "bytes",
    ),
}  # fmt: skip
"""Name -> figure. The first fourteen are those of `summary.json`."""

SUMMARY: tuple[str, ...] = tuple(FIGURES)[:14]
