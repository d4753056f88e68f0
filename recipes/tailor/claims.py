"""What each table of Model Tailor is about, and what it claims."""

from __future__ import annotations

from typing import NamedTuple

PAPER = (  # of the table repeated in NPS (ACL 2025), read through a public note on it: Avg, H
    ("base", 42.33, 29.05),
    ("unsafe", 56.42, 63.40),
    ("dare-0.1", 60.12, 36.64),
    ("grafting-0.1", 61.56, 60.03),
    ("paper-0.1", 61.87, 66.94),
)


class Claim(NamedTuple):
    """The first checkpoint lies above a share of the second, `of` new, original, average or h."""

    text: str
    first: str
    second: str
    of: str = "h"
    share: float = 1.0
    paper: str = ""


class Topic(NamedTuple):
    """A page: `paper` has Avg and H-score by checkpoint, where they are known."""

    title: str
    lead: str
    claims: tuple[Claim, ...]
    notes: tuple[str, ...] = ()
    paper: tuple[tuple[str, float, float], ...] = ()


TOPICS = {
    "tailor-main": Topic(
        "Model Tailor against other repairs",
        "One tuned checkpoint, repaired in every way: what is left of the new task and of the old"
        " ones?",
        (
            Claim(
                "A tenth keeps 99 % of the base on the original tasks",
                *("paper-0.1", "base", "original", 0.99, "about 99 %"),
            ),
            Claim(
                "A tenth keeps 97 % of the tuned checkpoint on the new task",
                *("paper-0.1", "unsafe", "new", 0.97, "about 97 %"),
            ),
            Claim("Tailor beats fine-tuning", "paper-0.1", "unsafe", paper="+3.54"),
            Claim("Tailor beats grafting", "paper-0.1", "grafting-0.1", paper="+6.91"),
            Claim("Tailor beats DARE", "paper-0.1", "dare-0.1", paper="+30.30"),
            Claim("Tailor beats WiSE-FT at 0.5", "paper-0.1", "wise-ft-0.5"),
            Claim("Tailor beats WiSE-FT at 0.7", "paper-0.1", "wise-ft-0.7"),
            Claim("Exact decoration beats the released code's", "paper-0.1", "released-0.1"),
            Claim("Anchors beat Tailor at a tenth", "anchored-0.1-1", "paper-0.1"),
            Claim("Anchored at full density beats Tailor", "anchored-1-1", "paper-0.1"),
            Claim("Anchored at full density beats WiSE-FT at 0.7", "anchored-1-1", "wise-ft-0.7"),
        ),
        (
            "Claims compare H-scores where they do not say otherwise.",
            "The paper's figures are of LLaVA-1.5-7B at 10 %, one target, as NPS (ACL 2025) repeats"
            " them, read through a public note. Avg is over eight original tasks and the target;"
            " the zero-shot average does not fit its H-score: distrust that cell.",
            "`base` is zero-shot, `unsafe` the fine-tuned checkpoint, the number behind a way its"
            " density, or WiSE-FT's weight; behind anchored its density and the anchors' weight."
            " Grafting keeps the largest changes, which of one task vector is TIES too. Anchored"
            " at density 1 is RegMean of base and tuned checkpoint.",
            "The base is LLaVA-shaped. An InstructBLIP-shaped base that knows anything is not at"
            " hand: this says nothing about that family.",
        ),
        PAPER,
    ),
    "tailor-sparsity": Topic(
        "How much of a fine-tuning must be kept",
        "The share of the task vector that is kept, with the paper's decoration, without it and"
        " with anchors.",
        (
            Claim(
                "A tenth, decorated, keeps 97 % of the tuned checkpoint on the new task",
                *("decorated-0.1", "unsafe", "new", 0.97, "about 97 %"),
            ),
            Claim(
                "A tenth, decorated, keeps 99 % of the base on the original tasks",
                *("decorated-0.1", "base", "original", 0.99, "about 99 %"),
            ),
            *(
                Claim(
                    f"Decoration gains more on the new task, at {share}",
                    *(f"decorated-{share}", f"bare-{share}", "new"),
                )
                for share in ("0.05", "0.1", "0.2")
            ),
            Claim("Decoration raises the H-score at 0.1", "decorated-0.1", "bare-0.1"),
            Claim(
                "A bare tenth keeps more of the old tasks", "bare-0.1", "decorated-0.1", "original"
            ),
            Claim("A tenth has a higher H-score than a half", "decorated-0.1", "decorated-0.5"),
            Claim("Anchors raise the H-score at 0.1", "anchored-0.1", "decorated-0.1"),
            Claim("Anchors raise the H-score at 0.5", "anchored-0.5", "decorated-0.5"),
            Claim("Anchors gain from a half to all", "anchored-1", "anchored-0.5"),
        ),
        (
            "The paper's own sweep is not public text; about 97 % and 99 % are its abstract's.",
            "A sweep takes moments of the tuned model; the other tables tailor block after block.",
        ),
    ),
    "tailor-mask": Topic(
        "By what the kept weights are chosen",
        "A tenth of the task vector, chosen by each criterion; decorated, and bare.",
        tuple(
            Claim(f"{text}, {told}", f"{form}mask-{first}", f"{form}mask-{second}", paper=paper)
            for form, told in (("", "decorated"), ("bare-", "bare"))
            for text, first, second, paper in (
                ("The fused score beats salience", "fused", "salience", "better"),
                ("The fused score beats sensitivity", "fused", "sensitivity", "better"),
                ("The fused score beats magnitude", "fused", "magnitude", "better"),
                ("The change's sensitivity beats the weight's", "sensitivity", "weight", ""),
                (
                    "The change's in the fused score beats the weight's",
                    "fused",
                    "fused-weight",
                    "",
                ),
            )
        ),
        (
            "That fusing is better is the abstract's claim; the ablation is not public text.",
            "Magnitude is the change's size over a whole matrix, salience the same after each row"
            " is standardised, sensitivity what reverting costs; `weight` is the released code's,"
            " of zeroing. `fused` weighs both alike, `fused-0.8` salience more; rank, block and row"
            " are the fused score, otherwise normalised or scoped.",
        ),
    ),
    "tailor-multitask": Topic(
        "Two tuned checkpoints in one",
        "Patches of two tasks, combined by each rule, against fusing the whole task vectors.",
        (
            Claim("The patches' mean beats averaging", "patches-mean", "fuse-linear"),
            Claim(
                "The patches' mean beats task arithmetic", "patches-mean", "fuse-task-arithmetic"
            ),
            Claim("The patches' mean beats TIES", "patches-mean", "fuse-ties"),
            Claim("The patches' mean beats DARE-TIES", "patches-mean", "fuse-dare-ties"),
            Claim("The patches' sum beats their mean", "patches-sum", "patches-mean"),
            Claim("Joint least squares beat the patches' mean", "patches-joint", "patches-mean"),
            Claim("The patches' mean beats the first task alone", "patches-mean", "unsafe"),
            Claim("The patches' mean beats the second task alone", "patches-mean", "second"),
        ),
        (
            "The paper's multi-task table and its rule where patches overlap are not public text.",
            "New is the mean of both new tasks. Patches keep a tenth, fuse's methods have their"
            " defaults. `linear` is the mean of the weights, `average` of the patches.",
        ),
    ),
    "tailor-lora": Topic(
        "A LoRA adapter, tailored",
        "The adapter's product is the task vector: what of it must be kept?",
        (
            Claim("A fifth beats the adapter", "lora-0.2", "adapter"),
            Claim(
                "A fifth keeps 97 % of the adapter on the new task",
                *("lora-0.2", "adapter", "new", 0.97),
            ),
            Claim(
                "A fifth keeps 99 % of the base on the original tasks",
                *("lora-0.2", "base", "original", 0.99),
            ),
            Claim("Decoration raises the H-score", "lora-0.2", "lora-bare-0.2"),
            Claim("Anchors raise the H-score", "lora-anchored-0.2", "lora-0.2"),
            Claim("A fifth beats WiSE-FT at 0.5", "lora-0.2", "lora-wise-ft-0.5"),
            Claim(
                "Anchored at full density beats WiSE-FT at 0.5",
                "lora-anchored-1",
                "lora-wise-ft-0.5",
            ),
        ),
        (
            "The released scripts keep 20 % of LoRA's; the paper's figures are not public text.",
            "The adapter is figure 2's of the language part, and is read as it is, not merged.",
        ),
    ),
}
