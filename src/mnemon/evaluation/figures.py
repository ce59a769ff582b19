"""The one table of figures: title, formula, meaning, which values are better. Pages and documents show it.

R[t, j] is a score of concept j after concept t was learned, R[j, j] its first score and R[N, j] its last, N the number
of concepts; x, y are unit features. `mnemon.evaluation.matrix` works out `MATRIX_FIGURES`, `mnemon.evaluation.numbers`
`FIGURES`.
"""

from dataclasses import dataclass, replace
from typing import Literal

Better = Literal["high", "low", ""]


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        title: for the head of a column.
        formula: with the symbols of the module's docstring.
        meaning: what it says, who uses it, what it needs and what it does not see.
        better: which values are better; "" where neither is.
        unit: "" for a plain number, "share" for 0..1 shown in whole percent, "percent" with a decimal, else what it
            counts.
    """

    title: str
    formula: str
    meaning: str
    better: Better = "high"
    unit: Literal["", "share", "percent", "bytes", "seconds", "count"] = ""


MATRIX_FIGURES: dict[str, Figure] = {
    "learning_accuracy": Figure(
        "Learning accuracy", "(1/N) Σ_j R[j, j]",
        "Each concept right after its own step, whatever became of it. Needs the diagonal.",
    ),
    "learning_accuracy_first10": Figure(
        "Learning accuracy, first 10", "(1/n) Σ_{j≤n} R[j, j],  n = min(10, N)",
        "The diagonal of the first concepts. Needs their diagonal.",
    ),
    "learning_accuracy_last10": Figure(
        "Learning accuracy, last 10", "(1/n) Σ_{j>N-n} R[j, j],  n = min(10, N)",
        "Beside the first ten it shows saturation: whether a long sequence is still learned at its end. Needs their "
        "diagonal.",
    ),
    "final_average": Figure(
        "Final average, A_N", "(1/N) Σ_j R[N, j]",
        "All concepts after the last step (CODA-Prompt, mammoth): the number to rank by. Needs the last row.",
    ),
    "retention": Figure(
        "Retention", "(1/N) Σ_j R[N, j] / R[j, j]",
        "What is left of what was learned; the last concept counts, with 1. Needs the diagonal and the last row.",
        "high", "share",
    ),
    "forgetting_from_best": Figure(
        "Forgetting, best − last", "1/(N-1) Σ_{j<N} (max_t R[t, j] - R[N, j])",
        "mammoth, LAMDA-PILOT; never below 0, as the maximum includes the last row. Needs every R[t, j], t ≥ j, j < N.",
        "low",
    ),
    "forgetting_from_first": Figure(
        "Forgetting, first − last", "1/(N-1) Σ_{j<N} (R[j, j] - R[N, j])",
        "Avalanche; below 0 where later concepts helped. Needs the diagonal and the last row.", "low",
    ),
    "forgetting_one_step": Figure(
        "Forgetting in a step, F_N", "1/(N-1) Σ_{t=2..N} 1/(t-1) Σ_{j<t} (R[t-1, j] - R[t, j])",
        "CODA-Prompt: the mean drop in one step, several times smaller than the other two. Needs every R[t, j], t ≥ j, "
        "j < N.",
        "low",
    ),
    "backward_transfer": Figure(
        "Backward transfer", "1/(N-1) Σ_{j<N} (R[N, j] - R[j, j])",
        "GEM (arXiv 1706.08840): minus the forgetting from the first score. Needs the diagonal and the last row.",
    ),
}  # fmt: skip
"""What follows from one score matrix, by the names in `mnemon.evaluation.matrix`. Without an entry that its
formula needs a figure has no value."""


def _of_matrix(name: str, title: str, meaning: str) -> Figure:
    """A figure of a run that is one of a matrix."""
    return replace(MATRIX_FIGURES[name], title=title, meaning=meaning)


_IDENTITY = "R: identity alignment, mean cosine of a concept's images with its references, identity features."
_END = "In the last row, all concepts in the model."
_AVERAGE = MATRIX_FIGURES["final_average"].formula

FIGURES: dict[str, Figure] = {
    "identity_alignment": Figure(
        "Identity", f"{_AVERAGE},  R = mean_{{i,k}} ⟨x_i, y_k⟩",
        f"Does it show this very instance? {_END} Identity features: DINO for photographs, the identity encoder on the "
        "built-in base. Ranks the table.",
    ),
    "image_alignment": Figure(
        "Image", f"{_AVERAGE},  R = mean_{{i,k}} ⟨x_i, y_k⟩",
        f"CLIP-I: the same with CLIP's image features, which hold scene and kind more than the individual. {_END}",
    ),
    "text_alignment": Figure(
        "Text", f"{_AVERAGE},  R = mean_i ⟨x_i, z_i⟩",
        f"Plain cosine of image i and the features z_i of its prompt in words. {_END}",
    ),
    "multi_text_alignment": Figure(
        "Text, several concepts", "mean over prompts of mean_i ⟨x_i, z_i⟩",
        "Plain cosine for prompts with two to four concepts, after the last concept.",
    ),
    "a_mmd": Figure(
        "A_mmd", "(1/N) Σ_j MMD²_u(references of j, images of j at N),  k(x, y) = (cos(x, y) + 1)²",
        "Unbiased, quadratic kernel, CLIP's image features at length √d, not multiplied. Around 0 is as good as "
        "photos; noisy for few images.",
        "low",
    ),
    "f_mmd": Figure(
        "F_mmd", "1/(N-1) Σ_{j<N} MMD²_u(images of j at j, images of j at N)",
        "Kernel and features as A_mmd. Drift since a concept was learned; none for a method that never learned. "
        "Images of one prompt and seed are not compared with each other, so 0 is no drift at all.",
        "low",
    ),
    "forgetting": _of_matrix(
        "forgetting_from_first", "Forgetting",
        f"First minus last (Avalanche). {_IDENTITY} Needs the diagonal and the last row. What was never learned "
        "cannot be forgotten: read it beside learning.",
    ),
    "learning_identity_first10": _of_matrix(
        "learning_accuracy_first10", "Learned, first 10", f"Just learned. {_IDENTITY}",
    ),
    "learning_identity_last10": _of_matrix(
        "learning_accuracy_last10", "Learned, last 10", f"Beside the first ten it shows saturation. {_IDENTITY}",
    ),
    "zero_shot_drift": Figure(
        "Zero-shot drift", "(1 - mean_i ⟨x_i, y_i⟩) / 2",
        "Images of general prompts without a concept, bare base against the end, same prompts and seeds, CLIP's "
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
        "Text, 2.5 convention", f"{_AVERAGE},  R = mean_i 2.5 · max(⟨x_i, z_i⟩, 0)",
        f"CLIPScore as Custom Diffusion and CIDM give text alignment. {_END}",
    ),
    "forgetting_image": _of_matrix(
        "forgetting_from_first", "Forgetting, image", "First minus last of image alignment.",
    ),
    "forgetting_from_best": _of_matrix(
        "forgetting_from_best", "Forgetting, best − last",
        f"mammoth, LAMDA-PILOT. {_IDENTITY} Needs every R[t, j], t ≥ j.",
    ),
    "forgetting_one_step": _of_matrix(
        "forgetting_one_step", "Forgetting in a step, F_N",
        f"CODA-Prompt; several times smaller than the others. {_IDENTITY} Needs every R[t, j], t ≥ j.",
    ),
    "backward_transfer": _of_matrix("backward_transfer", "Backward transfer", f"GEM: minus forgetting. {_IDENTITY}"),
    "retention": _of_matrix("retention", "Retention", f"{_IDENTITY} The last concept counts, with 1."),
    "learning_accuracy": _of_matrix("learning_accuracy", "Learning accuracy", f"The diagonal. {_IDENTITY}"),
    "identity_of_ceiling": Figure(
        "Identity of ceiling", "(1/N) Σ_j R[N, j] / c_j,  c_j = mean_{k≠l} ⟨y_k, y_l⟩",
        "Against what the references reach among themselves; not a strict bound.", "high", "share",
    ),
    "recognised": Figure(
        "Recognised, top 1", "share of images i of j with argmax_k ⟨x_i, m_k⟩ = j",
        f"Nearest concept by identity features, m_k the mean reference of k at unit length. Chance is 1/N. {_END}",
        "high", "share",
    ),
    "kid": Figure(
        "Kernel distance, cubic", "(1/N) Σ_j MMD²_u with k(x, y) = (cos(x, y) + 1)³",
        "KID's formula on CLIP's image features of few images: not comparable to published KID.", "low",
    ),
    "mmd_just_learned": Figure(
        "MMD just learned", "(1/N) Σ_j MMD²_u(references of j, images of j at j)",
        "As A_mmd, of the diagonal: plasticity.", "low",
    ),
    "general_text_alignment": Figure(
        "Text, general prompts", "mean_i ⟨x_i, z_i⟩", "Prompts without a concept, after the last concept.",
    ),
    "multi_identity_alignment": Figure(
        "Identity, several concepts", "mean over prompts of mean_{c in prompt} mean_{i,k} ⟨x_i, y_ck⟩",
        "Whole images against each of their concepts, so lower than for one concept.",
    ),
    "multi_image_alignment": Figure(
        "Image, several concepts", "mean over prompts of mean_{c in prompt} mean_{i,k} ⟨x_i, y_ck⟩",
        "The same with CLIP.",
    ),
    "noun_accuracy": Figure(
        "Noun shown", "share of images whose noun is the prompt's", f"By the world's classifier. {_END}",
        "high", "share",
    ),
    "background_accuracy": Figure(
        "Background shown", "share of images whose background is the prompt's", f"By the world's classifier. {_END}",
        "high", "share",
    ),
    "general_attribute_accuracy": Figure(
        "General attributes", "mean of the shares of noun, colour, pattern, background shown as said",
        "General prompts after the last concept, by the world's classifier: what the base still renders exactly.",
        "high", "share",
    ),
    "picture_error": Figure(
        "± of a cell", "mean_j t · s_j / √n", "Half of a 95 % interval of one R[N, j] from its n images.", "",
    ),
    "fusion_peak_bytes": Figure(
        "Fusion, peak memory", "max_τ m(τ) - m(0), τ while fusing",
        "Memory m that fusing takes anew: of the GPU, else of the whole process.", "low", "bytes",
    ),
    "draw_seconds_per_picture": Figure(
        "Sampling an image", "seconds / images, last row", "Wall time with all concepts in the model.", "low",
        "seconds",
    ),
    "peak_memory_bytes": Figure(
        "Peak memory", "max_τ m(τ), τ in the run", "Memory m of the GPU, else of the whole process.", "low", "bytes",
    ),
    "alone_identity_alignment": Figure(
        "Alone", "(1/N) Σ_j a_j,  a_j = mean_{i,k} ⟨x_i, y_k⟩",
        "The method's own bound: each concept by the same recipe on the bare base, with no other in the model. "
        "Identity features as in Identity.",
    ),
    "identity_of_alone": Figure(
        "Kept of alone", "Σ_j R[N, j] / Σ_j a_j",
        "Identity at the end against the method's own bound, so what the other concepts cost, in learning and in "
        "forgetting.", "high", "share",
    ),
}  # fmt: skip
"""The figures of a run. The first fourteen are those of `summary.json` and `report.md`; their texts stay."""

SUMMARY: tuple[str, ...] = tuple(FIGURES)[:14]
ALONE: tuple[str, ...] = ("alone_identity_alignment", "identity_of_alone")
"""In the summary too, where they were measured."""
