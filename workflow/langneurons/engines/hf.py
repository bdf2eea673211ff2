"""The reference engine: transformers, with hooks. Runs everywhere."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from langneurons.corpus.sentences import Sentence
from langneurons.engines.base import Completion, EffectProof, EngineError, Sampling, WindowLoss
from langneurons.engines.folding import folded, folds
from langneurons.engines.hidden import HiddenCapture, compare_hidden, hidden_of, with_hidden
from langneurons.engines.proof import Capture, compare_with_expectation
from langneurons.engines.recording import Recorder, SentenceRecorder
from langneurons.interventions import Intervention
from langneurons.models.layouts import Layout, layout_of
from langneurons.models.loading import load_model, load_tokenizer
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.sentences import SentenceMeans
from langneurons.progress import progress


class HfEngine:
    """A transformers model with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, generation_batch_size: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.generation_batch_size = generation_batch_size
        self.layout: Layout = layout_of(type(model).__name__)
        self.layers: list[nn.Module] = list(model.get_submodule(self.layout.layers))
        self.shape = (len(self.layers), self._neurons())
        self.width = down_weight(self._module(0, self.layout.down)).shape[0]
        self.end_tokens = self._end_tokens()
        # generate() would mix a model's own defaults (sampling, penalties, lengths) into what it is asked for.
        model.generation_config = transformers.GenerationConfig()
        self.description = {
            "architecture": type(model).__name__,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "engine": "hf",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    @classmethod
    def load(
        cls,
        model: str,
        revision: str | None = None,
        dtype: str = "float32",
        gpus: int = 0,
        threads: int = 1,
        batch_size: int = 32,
        generation_batch_size: int = 32,
    ) -> HfEngine:
        """Load a folder or hub id. The number of CPU threads is fixed, since it changes how sums are rounded."""
        torch.set_num_threads(threads)
        return cls(
            load_model(model, revision, dtype, gpus), load_tokenizer(model, revision), batch_size, generation_batch_size
        )

    def _module(self, layer: int, path: str) -> nn.Module:
        return self.layers[layer].get_submodule(path)

    def _neurons(self) -> int:
        """FFN neurons per layer: the input size of the down projection (transposed in GPT-2's Conv1D)."""
        return down_weight(self._module(0, self.layout.down)).shape[1]

    def _batches(self, windows: np.ndarray, description: str) -> Iterator[torch.Tensor]:
        starts = range(0, len(windows), self.batch_size)
        for start in progress(starts, description, unit="batch"):
            batch = windows[start : start + self.batch_size].astype(np.int64)
            yield torch.from_numpy(batch).to(self.model.device)

    # -- recording ----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def record(self, windows: np.ndarray) -> ActivationCounts:
        """Count on the base model without its language-model head."""
        recorder = Recorder(self.layers, self.layout, self.shape, self.width)
        with recorder.attached():
            for batch in self._batches(windows, "recording"):
                self.model.base_model(input_ids=batch, use_cache=False)
                recorder.collect(batch.numel())
        return recorder.counts()

    @torch.inference_mode()
    def sentence_means(self, windows: np.ndarray, sentences: Sequence[Sentence]) -> SentenceMeans:
        """On the base model, whole windows at a time: a sentence is read with what stands before it in its window."""
        recorder = SentenceRecorder(self.layers, self.layout, self.shape, sentences)
        used = sorted({sentence.window for sentence in sentences})
        starts = range(0, len(used), self.batch_size)
        for start in progress(starts, "recording sentences", unit="batch"):
            numbers = used[start : start + self.batch_size]
            with recorder.attached(numbers):
                batch = torch.from_numpy(windows[numbers].astype(np.int64)).to(self.model.device)
                self.model.base_model(input_ids=batch, use_cache=False)
        return recorder.means()

    # -- editing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def perturbed(self, intervention: Intervention) -> Iterator[None]:
        """Weights of the down projection are edited where that says the same (see `langneurons.engines.folding`),
        else hooks edit the vector where the model computes it; leaving the block undoes either."""
        intervention.check(*self.shape, self.width)
        length = self.width if intervention.site == "residual" else self.shape[1]
        with ExitStack() as stack:
            for layer, (neurons, keep, fill) in intervention.by_layer().items():
                if folds(intervention, self.layout.gated):
                    down = self._module(layer, self.layout.down)
                    stack.enter_context(folded(down, down_weight(down), neurons, keep, fill))
                    continue
                edit = AffineEdit(neurons, keep, fill, length, self.model.dtype, self.model.device)
                if intervention.site == "residual":
                    handle = self.layers[layer].register_forward_hook(
                        lambda module, inputs, output, edit=edit: with_hidden(output, edit(hidden_of(output)))
                    )
                else:
                    handle = self._module(layer, self.layout.activation).register_forward_hook(
                        lambda module, inputs, output, edit=edit: edit(output)
                    )
                stack.callback(handle.remove)
            yield

    @torch.inference_mode()
    def verify(self, intervention: Intervention, probe: np.ndarray) -> EffectProof:
        """See `langneurons.engines.proof`."""
        if len(intervention) == 0:
            return EffectProof(0, note="the set of neurons is empty; nothing was edited")
        batch = torch.from_numpy(probe.astype(np.int64)).to(self.model.device)
        if intervention.site == "residual":
            return self._verify_residual(intervention, batch)
        baseline, edited = Capture(self.layers, self.layout), Capture(self.layers, self.layout)
        with baseline.attached(range(min(intervention.by_layer()))):
            baseline_logits = self.model(input_ids=batch, use_cache=False).logits
        with self.perturbed(intervention), edited.attached(range(max(intervention.by_layer()) + 1)):
            edited_logits = self.model(input_ids=batch, use_cache=False).logits
        change = (edited_logits - baseline_logits).abs().max().item()
        equal = all(torch.equal(baseline.output[layer], edited.output[layer]) for layer in baseline.output)
        hooked = not folds(intervention, self.layout.gated)
        return compare_with_expectation(intervention, lambda layer: edited.feed_forward(layer, hooked), equal, change)

    def _verify_residual(self, intervention: Intervention, batch: torch.Tensor) -> EffectProof:
        """The same for a shift of the hidden states."""
        baseline, edited = HiddenCapture(self.layers), HiddenCapture(self.layers)
        with baseline.attached():
            baseline_logits = self.model(input_ids=batch, use_cache=False).logits
        with self.perturbed(intervention), edited.attached():
            edited_logits = self.model(input_ids=batch, use_cache=False).logits
        change = (edited_logits - baseline_logits).abs().max().item()
        return compare_hidden(intervention, baseline, edited, change)

    # -- perplexity ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def token_nll(self, windows: np.ndarray) -> WindowLoss:
        """Negative log-likelihood in float32 per token, summed per window in float64."""
        sums = []
        for batch in self._batches(windows, "perplexity"):
            logits = self.model(input_ids=batch, use_cache=False).logits[:, :-1].float()
            nll = logits.logsumexp(-1) - logits.gather(-1, batch[:, 1:, None]).squeeze(-1)
            sums.append(nll.double().sum(dim=1).cpu().numpy())
        nll_sum = np.concatenate(sums) if sums else np.zeros(0)
        if not np.isfinite(nll_sum).all():
            raise EngineError("the model's log-likelihoods are NaN or infinite. Use a wider number format (dtype).")
        return WindowLoss(nll_sum, np.full(len(windows), windows.shape[1] - 1, dtype=np.int64))

    # -- generation ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Completion]:
        """Continue prompts in batches of similar length, padded on the left; the padding changes no result."""
        if not prompts:
            return []
        lengths = [len(ids) for ids in self.tokenizer(list(prompts))["input_ids"]]
        self._check_context(max(lengths), sampling.max_new_tokens)
        order = sorted(range(len(prompts)), key=lambda index: (-lengths[index], index))
        completions: dict[int, Completion] = {}
        for start in range(0, len(order), self.generation_batch_size):
            chosen = order[start : start + self.generation_batch_size]
            batch = self._generate_batch([prompts[index] for index in chosen], sampling)
            completions.update(zip(chosen, batch, strict=True))
        return [completions[index] for index in range(len(prompts))]

    def _check_context(self, longest: int, new_tokens: int) -> None:
        context = getattr(self.model.config, "max_position_embeddings", None)
        if context and longest + new_tokens > context:
            raise EngineError(
                f"the longest prompt has {longest} tokens; with generation.max_new_tokens = {new_tokens} it "
                f"exceeds the "
                f"model's context of {context}. Lower generation.max_new_tokens to {max(context - longest, 0)} or less."
            )

    def _generate_batch(self, prompts: list[str], sampling: Sampling) -> list[Completion]:
        encoded = self.tokenizer(prompts, return_tensors="pt", padding=True).to(self.model.device)
        mask = encoded["attention_mask"]
        options: dict[str, Any] = {"do_sample": sampling.temperature > 0}
        if sampling.temperature > 0:
            torch.manual_seed(sampling.seed)
            options |= {"temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
        output = self.model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=mask,
            generation_config=transformers.GenerationConfig(
                max_new_tokens=sampling.max_new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.end_tokens,
                bos_token_id=self.tokenizer.bos_token_id,
                **options,
            ),
            logits_processor=transformers.LogitsProcessorList([RepetitionPenalty(sampling.repetition_penalty, mask)]),
            stopping_criteria=transformers.StoppingCriteriaList(
                [StopStrings(sampling.stop, mask.shape[1], self.decode)]
            ),
        )
        return [self._completion(row.tolist(), sampling) for row in output[:, mask.shape[1] :]]

    def _end_tokens(self) -> list[int] | None:
        end = self.model.generation_config.eos_token_id
        if end is None:
            end = getattr(self.tokenizer, "eos_token_id", None)
        return [end] if isinstance(end, int) else end

    def decode(self, ids: list[int]) -> str:
        """The text of generated tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _completion(self, ids: list[int], sampling: Sampling) -> Completion:
        """Cut at the end-of-text token, then before the first stop string."""
        ends = [index for index, token in enumerate(ids) if token in (self.end_tokens or [])]
        kept = ids[: ends[0]] if ends else ids
        text = self.decode(kept)
        found = [position for string in sampling.stop if (position := text.find(string)) >= 0]
        if found:
            tokens = self._tokens_until_stop(kept, sampling.stop)
            return Completion(text[: min(found)].strip(), tokens, "stop")
        tokens = len(kept) + bool(ends)
        return Completion(text.strip(), tokens, "stop" if ends else "length")

    def _tokens_until_stop(self, ids: list[int], stop: tuple[str, ...]) -> int:
        """Generated tokens up to the one that completed a stop string; what follows in the row is padding."""

        def stopped(length: int) -> bool:
            text = self.decode(ids[:length])
            return any(string in text for string in stop)

        return 1 + bisect_left(range(1, len(ids)), True, key=stopped)


class AffineEdit:
    """`a -> keep * a + fill` over the last axis, in the model's number format."""

    def __init__(
        self,
        neurons: np.ndarray,
        keep: np.ndarray,
        fill: np.ndarray,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        full_keep, full_fill = torch.ones(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
        full_keep[neurons] = torch.from_numpy(keep)
        full_fill[neurons] = torch.from_numpy(fill)
        self.keep, self.fill = full_keep.to(device, dtype), full_fill.to(device, dtype)
        self.fills = bool(full_fill.any())

    def __call__(self, vector: torch.Tensor) -> torch.Tensor:
        kept = vector * self.keep
        return kept + self.fill if self.fills else kept


class RepetitionPenalty(transformers.LogitsProcessor):
    """The repetition penalty of Keskar et al. 2019, without counting the padding of shorter prompts."""

    def __init__(self, penalty: float, prompt_mask: torch.Tensor) -> None:
        self.penalty = penalty
        self.prompt_mask = prompt_mask.bool()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.penalty == 1.0:
            return scores
        real = torch.ones_like(input_ids, dtype=torch.bool)
        real[:, : self.prompt_mask.shape[1]] = self.prompt_mask
        seen = torch.zeros(scores.shape[0], scores.shape[1] + 1, dtype=torch.bool, device=scores.device)
        seen.scatter_(1, input_ids.masked_fill(~real, scores.shape[1]), True)  # padding falls into the extra column
        penalized = torch.where(scores > 0, scores / self.penalty, scores * self.penalty)
        return torch.where(seen[:, :-1], penalized, scores)


class StopStrings(transformers.StoppingCriteria):
    """Ends a row once its generated text holds a stop string; that of transformers also looks into the prompt."""

    def __init__(self, stop: tuple[str, ...], prompt_length: int, decode: Callable[[list[int]], str]) -> None:
        self.stop, self.prompt_length, self.decode = stop, prompt_length, decode
        # A token is at least one byte; some more, for tokens without text.
        self.tail = max((len(string.encode()) for string in stop), default=0) + 8

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **options: Any) -> torch.Tensor:
        """Which rows are done, bool `[row]`."""
        done = [False] * len(input_ids)
        if self.stop:
            tails = input_ids[:, self.prompt_length :][:, -self.tail :].tolist()
            done = [any(string in text for string in self.stop) for text in map(self.decode, tails)]
        return torch.tensor(done, device=input_ids.device)


def down_weight(module: nn.Module) -> torch.Tensor:
    """The weight of a down projection as `[d_model, neuron]`; GPT-2's Conv1D stores it transposed."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.T if isinstance(module, transformers.pytorch_utils.Conv1D) else weight
