"""Run a model over questions: a greedy response and the log-probability of each option.

What questions about the same images begin with is read once, then the rest of each prompt on its
key and value cache. The last logits begin the response and score the first token of each option;
further tokens of an option are scored on the prompt's cache. Every step is exact, as a prompt is
read from left to right and a cached prefix does not depend on what follows it. Where it does, as
PaliGemma reads questions in both directions and InstructBLIP's Q-Former looks at a picture with the
question in mind, each question is read whole.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mllmtool.errors import NumericError
from mllmtool.evaluation.features import Features
from mllmtool.evaluation.packing import Strip, pack, passes
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.questions import Group, Question
from mllmtool.models.encoding import IGNORED, Encoder, Row

DECIMALS = 6  # of log-probabilities on disk


@dataclass(frozen=True)
class Read:
    """Rows of tokens that a model has read.

    `mask` is (rows, tokens); `logits`, of the last tokens only, (rows, kept, vocabulary); `shift`,
    (rows, 1), is the position of a row's next token less the number of tokens before it.
    """

    cache: Any
    mask: Tensor
    logits: Tensor
    shift: Tensor

    def cached(self, rows: Tensor) -> Any:
        """The cache of chosen rows, to be read on; this one stays as it is."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        if rows.tolist() != list(range(len(self.mask))):
            cache.batch_select_indices(rows)
        return cache


@dataclass(frozen=True)
class Reader:
    """A model in evaluation mode and the encoder of its checkpoint.

    `features` remembers what is seen in pictures. `whole` shares nothing: each prompt, and each
    option behind its prompt, is read alone from its first token on.
    """

    model: nn.Module
    encoder: Encoder
    features: Features | None = None
    whole: bool = False

    @torch.inference_mode()
    def answer(self, group: Group) -> Iterator[tuple[Question, Prediction]]:
        """Answer the questions of a group.

        Raises:
            NumericError: logits are NaN or infinite.
        """
        apart = self.whole or self.encoder.family.apart
        prefixes = None if apart else self._read(group.prefixes)
        for questions in group.batches:
            for some in [[one] for one in questions] if self.whole else [questions]:
                yield from self._answer(some, group, prefixes)

    @torch.inference_mode()
    def score(self, question: Question) -> list[float]:
        """Log-probability of each option, each read whole, as the model itself would be called."""
        prompt = question.prompt
        head = prompt.ids[: len(prompt.ids) - question.merged]
        scores = []
        for ids in question.continuations:
            labels = torch.cat([torch.full_like(head, IGNORED), ids])
            row = replace(prompt, ids=torch.cat([head, ids]), labels=labels)
            batch = self._moved(self.encoder.batch([row]))
            del batch["labels"]
            made = self.model(**batch, use_cache=False, logits_to_keep=len(ids) + 1)
            logits = _language(made).logits
            _check_finite(logits, [question])
            logprobs = logits[0, :-1].float().log_softmax(-1).cpu()
            scores.append(float(logprobs.gather(-1, ids[:, None]).sum()))
        return scores

    def _answer(
        self, questions: Sequence[Question], group: Group, prefixes: Read | None
    ) -> Iterator[tuple[Question, Prediction]]:
        prompts = self._read_prompts(questions, group, prefixes)
        _check_finite(prompts.logits, questions)
        responses = list(self._respond(prompts, questions))
        if self.whole:
            scores = [self.score(question) for question in questions]
        else:
            scores = self._score(prompts, questions)
        for question, (tokens, ended), row in zip(questions, responses, scores, strict=True):
            yield (
                question,
                Prediction(
                    item=question.item,
                    response=self.encoder.decode(tokens),
                    finish="end" if ended else "length",
                    logprobs=tuple(round(score, DECIMALS) for score in row),
                    read="whole" if self.whole else "shared",
                ),
            )

    def _read_prompts(
        self, questions: Sequence[Question], group: Group, prefixes: Read | None
    ) -> Read:
        if prefixes is None:
            return self._read([question.prompt for question in questions])
        rest = [Row(q.prompt.ids[q.head :], q.prompt.labels[q.head :], ()) for q in questions]
        device = prefixes.mask.device
        places = torch.tensor([group.places[q.prefix] for q in questions], device=device)
        return self._read(rest, prefixes, places, 1 + max(q.merged for q in questions))

    def _read(
        self,
        rows: Sequence[Row],
        before: Read | None = None,
        places: Tensor | None = None,
        keep: int = 1,
    ) -> Read:
        """Read left-padded rows, each after the row of `before` at its place."""
        batch = self._moved(self.encoder.text(rows, padding="left"))
        del batch["labels"]
        if before is not None and places is not None:
            mask = torch.cat([before.mask[places], batch["attention_mask"]], 1)
            shift = before.shift[places]
            batch |= {"attention_mask": mask, "past_key_values": before.cached(places)}
            positions = (mask.cumsum(1) - 1)[:, -batch["input_ids"].shape[1] :] + shift
        else:
            batch |= self._seen(rows, batch)
            positions, shift = self._positions(batch)
        made = self.model(**batch, position_ids=positions, use_cache=True, logits_to_keep=keep)
        made = _language(made)
        return Read(made.past_key_values, batch["attention_mask"], made.logits.float(), shift)

    def _seen(self, rows: Sequence[Row], batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """What a call of the model takes for the images of rows."""
        if self.features is None or self.whole or not any(row.images for row in rows):
            return self._moved(self.encoder.pixels(rows))
        return self.features.seen(self.model, self.encoder, rows, batch)

    def _positions(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Positions of tokens that nothing comes before, and the shift of those to come.

        They are counted, but for models that place an image's tokens on a plane and say how.
        """
        mask = batch["attention_mask"]
        planar = getattr(getattr(self.model, "model", None), "get_rope_index", None)
        if planar is not None:
            positions, shift = planar(**batch)
            return positions, shift
        return (mask.cumsum(1) - 1).clamp(min=0), mask.new_zeros(len(mask), 1)

    def _moved(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        device = next(self.model.parameters()).device
        return {name: tensor.to(device) for name, tensor in batch.items()}

    @property
    def _decoder(self) -> nn.Module:
        """What reads on from a cache: InstructBLIP itself would ask for a picture."""
        inner: Any = getattr(self.model, "language_model", None)
        return inner if hasattr(inner, "generate") else self.model

    def _respond(
        self, prompts: Read, questions: Sequence[Question]
    ) -> Iterator[tuple[list[int], bool]]:
        """Greedy tokens of each row up to its end token, and whether there was one."""
        ends = torch.tensor(
            [self.encoder.tokenizer.convert_tokens_to_ids(end) for end in self.encoder.ends],
            device=prompts.mask.device,
        )
        limits = [question.max_new_tokens for question in questions]
        cache, mask = prompts.cached(torch.arange(len(questions))), prompts.mask
        steps = [prompts.logits[:, -1].argmax(-1)]
        ended = torch.isin(steps[0], ends)
        while len(steps) < max(limits) and not ended.all():
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            made = self._decoder(
                input_ids=steps[-1][:, None],
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1 + prompts.shift,
                past_key_values=cache,
                use_cache=True,
            )
            _check_finite(made.logits, questions)
            steps.append(made.logits[:, -1].argmax(-1))
            ended |= torch.isin(steps[-1], ends)
        for row, limit in zip(torch.stack(steps, 1), limits, strict=True):
            tokens = row[:limit]
            stops = torch.isin(tokens, ends).nonzero()
            yield (tokens[: int(stops[0])] if len(stops) else tokens).tolist(), len(stops) > 0

    def _score(self, prompts: Read, questions: Sequence[Question]) -> list[list[float]]:
        """Log-probability of each option of each question, summed over its tokens."""
        logprobs = prompts.logits.log_softmax(-1)
        scores: list[list[float]] = []
        for row, question in enumerate(questions):
            first = logprobs[row, logprobs.shape[1] - 1 - question.merged]
            starts = [int(ids[0]) for ids in question.continuations]
            scores.append(first[torch.tensor(starts, dtype=torch.long)].tolist())
        for strips in passes(questions):
            for strip, rest in zip(
                strips, self._score_rest(prompts, questions, strips), strict=True
            ):
                for option, score in zip(strip.options, rest, strict=True):
                    scores[strip.row][option] += score
        return scores

    def _score_rest(
        self, prompts: Read, questions: Sequence[Question], strips: Sequence[Strip]
    ) -> Iterator[list[float]]:
        """Log-probability of the tokens after the first, of each option of each strip."""
        packed = pack(strips, prompts.mask.device)
        rows = torch.tensor([strip.row for strip in strips], device=prompts.mask.device)
        before = prompts.mask[rows]
        for mask, strip in zip(before, strips, strict=True):
            mask[len(mask) - questions[strip.row].merged :] = 0
        seen = packed.seen(before)
        dtype = next(self.model.parameters()).dtype
        made = self._decoder(
            input_ids=packed.inputs,
            attention_mask=torch.zeros_like(seen, dtype=dtype).masked_fill(
                ~seen, torch.finfo(dtype).min
            ),
            position_ids=before.sum(1, keepdim=True) + prompts.shift[rows] + packed.ahead,
            past_key_values=prompts.cached(rows),
            use_cache=True,
        )
        _check_finite(made.logits, questions)
        logprobs = made.logits.float().log_softmax(-1).gather(-1, packed.targets[..., None])
        for row, strip in zip(logprobs[..., 0].cpu(), strips, strict=True):
            lengths = [len(ids) - 1 for ids in strip.tokens]
            yield [float(part.sum()) for part in row[: sum(lengths)].split(lengths)]


def _language(made: Any) -> Any:
    """The language model's output, which InstructBLIP's is around."""
    return getattr(made, "language_model_outputs", made)


def _check_finite(logits: Tensor, questions: Sequence[Question]) -> None:
    if not torch.isfinite(logits).all():
        raise NumericError(f"{questions[0].item}: logits of its batch are not finite")
