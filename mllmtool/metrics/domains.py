"""The matchers of the continual benchmark's domains (MLLM-CL, as arXiv 2603.14493 adapted them).

They are for comparison with published figures; a blank prediction is wrong in all of them.
"""

import re

REFUSAL = "Unanswerable"
LETTER_ANSWERS = {"a", "b", "c", "d"}
STATES = "which states"


def remote_sensing(prediction: str, reference: str) -> float:
    """RS and AD: several words must be within the prediction, one word must stand apart in it."""
    said, wanted = prediction.strip().lower(), reference.strip().lower()
    if not said or REFUSAL in prediction:
        return 0.0
    if " " in wanted or " " not in said:
        return float(wanted in said)
    return float(re.search(rf"(?:^|[ .,]){re.escape(wanted)}(?:$|[ .,])", said) is not None)


def medical(prediction: str, reference: str) -> float:
    """Med: the reference is a part of the prediction."""
    return float(reference.strip().lower() in prediction.lower())


def science(prediction: str, reference: str, question: str) -> float:
    """Sci: a letter must be all that is said, of states the share that is named, else a part."""
    said, wanted = prediction.strip().lower(), reference.strip().lower()
    if wanted in LETTER_ANSWERS:
        return float(said == wanted)
    if STATES in question.lower():
        states, named = _listed(wanted), _listed(said)
        return len(states & named) / len(states)
    return float(wanted in said)


def finance(prediction: str, reference: str) -> float:
    """Fin: equal without spaces and periods."""
    return float(_bare(prediction) == _bare(reference) != "")


def _listed(text: str) -> set[str]:
    return {part.strip() for part in text.rstrip(".").split(",") if part.strip()}


def _bare(text: str) -> str:
    return text.lower().replace(" ", "").replace(".", "").strip()
