"""The reference engine: transformers, with hooks. Runs everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
import transformers
from torch import nn

from langneurons.corpus.sentences import Sentence
from langneurons.engines.base import NOT_FINITE, Completion, EffectProof, EngineError, Sampling, WindowLoss
from langneurons.engines.batching import in_batches
from langneurons.engines.completion import completion, end_tokens
from langneurons.engines.counting import AllRecorded
from langneurons.engines.folding import check_compiled, folded, folds
from langneurons.engines.hidden import HiddenCapture, compare_hidden, hidden_of, with_hidden
from langneurons.engines.limits import Limits
from langneurons.engines.proof import NOT_DESCRIBED, Capture, check_layout, compare_with_expectation, layout_probe
from langneurons.engines.recording import Recorder, SentenceRecorder
from langneurons.engines.streams import stream_seeds
from langneurons.interventions import Intervention
from langneurons.models.layouts import Layout, layout_of
from langneurons.models.loading import load_model
from langneurons.models.tokenizer import load_tokenizer
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.sentences import SentenceMeans

T = TypeVar("T")


class HfEngine:
    """A transformers model with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, generation_batch_size: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = model.name_or_path or type(model).__name__
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.batch_size = batch_size
        self.generation_batch_size = generation_batch_size
        self.eager = True
        self.layout: Layout = layout_of(type(model).__name__)
        self.layers: list[nn.Module] = list(model.get_submodule(self.layout.layers))
        self.shape = (len(self.layers), self._neurons())
        self.width = down_weight(self._module(0, self.layout.down)).shape[0]
        self.end_tokens = end_tokens(model.generation_config, tokenizer)
        self.limits = Limits.of(self.name, len(model.get_input_embeddings().weight), model.config)
        self.limits.check_tokenizer(tokenizer, self.end_tokens)
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
        attention: str | None = None,
        eager: bool = True,
        window: int = 0,
        interventions: Sequence[Intervention] = (),
    ) -> HfEngine:
        """Load a folder or hub id. The number of CPU threads is fixed, since it changes how sums are rounded. What
        comes, `window` and `interventions`, changes nothing here."""
        torch.set_num_threads(threads)
        loaded = load_model(model, revision, dtype, gpus, attention)
        engine = cls(loaded, load_tokenizer(model, revision), batch_size, generation_batch_size)
        engine.name = model
        engine.check_layout()
        if gpus == 1 and not eager:  # not with the hooks that carry vectors between several
            engine.compile()
        return engine

    @torch.inference_mode()
    def check_layout(self) -> None:
        """See `langneurons.engines.proof.check_layout`: all layers, on a few tokens."""
        seen = Capture(self.layers, self.layout)
        for path in filter(None, (self.layout.activation, self.layout.up)):
            for number, layer in enumerate(self.layers):
                if path not in dict(layer.named_modules()):
                    raise EngineError(NOT_DESCRIBED.format(number, self.name, f"it has no module '{path}'"))
        with seen.attached(range(len(self.layers))):
            self.model.base_model(input_ids=self._ids(layout_probe(self.limits.vocabulary)), use_cache=False)
        for number in range(len(self.layers)):
            product, activation, up = (store.get(number) for store in (seen.product, seen.activation, seen.up))
            check_layout(self.name, number, product, activation, up, self.layout.gated)

    def compile(self) -> None:
        """Compile the steps of generation, where `transformers` can; every projection that edits reach has a bias."""
        self.eager = False
        self.description["mode"] = "compiled"
        for layer in range(len(self.layers)):
            down: Any = self._module(layer, self.layout.down)
            if down.bias is None:
                bias = torch.zeros(self.width, dtype=down.weight.dtype, device=down.weight.device)
                down.bias = nn.Parameter(bias, requires_grad=False)

    def _module(self, layer: int, path: str) -> nn.Module:
        return self.layers[layer].get_submodule(path)

    def _neurons(self) -> int:
        """FFN neurons per layer: the input size of the down projection (transposed in GPT-2's Conv1D)."""
        return down_weight(self._module(0, self.layout.down)).shape[1]

    def _ids(self, windows: np.ndarray) -> torch.Tensor:
        """Windows as the model's input, on the device of its first layer."""
        return torch.from_numpy(windows.astype(np.int64)).to(self.device)

    def _in_batches(
        self, windows: np.ndarray, numbers: Sequence[int], compute: Callable[[torch.Tensor, list[int]], T], what: str
    ) -> list[T]:
        """Compute the windows of these numbers in batches, of at most the size that memory was enough for before."""
        self.limits.check_windows(windows)

        def batch(chosen: Sequence[int]) -> T:
            return compute(self._ids(windows[list(chosen)]), list(chosen))

        def refuse(number: int) -> EngineError:
            remedy = "Use shorter windows ('corpora.window', or 'window' of the model)"
            return self._out_of_memory(f"window of {windows.shape[1]} tokens", remedy)

        results, self.batch_size = in_batches(numbers, self.batch_size, batch, refuse, what, "window")
        return results

    def _out_of_memory(self, what: str, remedy: str) -> EngineError:
        return EngineError(
            f"the model '{self.name}' ran out of memory with a single {what}. {remedy}, a narrower number format "
            "('dtype'), more GPUs ('gpus') or a machine with more memory."
        )

    # -- recording ----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def record(self, windows: np.ndarray, sums: bool = True) -> ActivationCounts:
        """Count on the base model without its language-model head."""
        recorder = Recorder(self.layers, self.layout, self.shape, self.width, sums)

        def count(batch: torch.Tensor, numbers: list[int]) -> None:
            with recorder.accumulator.all_or_nothing():
                with suppress(AllRecorded):
                    self.model.base_model(input_ids=batch, use_cache=False)
                recorder.collect(batch.numel())

        with recorder.attached():
            self._in_batches(windows, range(len(windows)), count, "recording")
        return recorder.counts()

    @torch.inference_mode()
    def sentence_means(self, windows: np.ndarray, sentences: Sequence[Sentence]) -> SentenceMeans:
        """On the base model, whole windows at a time: a sentence is read with what stands before it in its window."""
        recorder = SentenceRecorder(self.layers, self.layout, self.shape, sentences)

        def read(batch: torch.Tensor, numbers: list[int]) -> None:
            with recorder.attached(numbers):
                self.model.base_model(input_ids=batch, use_cache=False)

        used = sorted({sentence.window for sentence in sentences})
        self._in_batches(windows, used, read, "recording sentences")
        return recorder.means()

    # -- editing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def perturbed(self, intervention: Intervention) -> Iterator[None]:
        """Weights of the down projection are edited where that says the same (see `langneurons.engines.folding`),
        else hooks edit the vector where the model computes it; leaving the block undoes either."""
        intervention.check(*self.shape, self.width)
        if not self.eager:
            check_compiled(intervention, self.layout.gated)
        length = self.width if intervention.site == "residual" else self.shape[1]
        with ExitStack() as stack:
            for layer, (neurons, keep, fill) in intervention.by_layer().items():
                if folds(intervention, self.layout.gated):
                    down = self._module(layer, self.layout.down)
                    stack.enter_context(folded(down, down_weight(down), neurons, keep, fill))
                    continue
                device = down_weight(self._module(layer, self.layout.down)).device  # that of the layer
                edit = AffineEdit(neurons, keep, fill, length, self.model.dtype, device)
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
        self.limits.check_windows(probe)
        batch = self._ids(probe)
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

        def score(batch: torch.Tensor, numbers: list[int]) -> np.ndarray:
            logits = self.model(input_ids=batch, use_cache=False).logits[:, :-1].float()
            nll = logits.logsumexp(-1) - logits.gather(-1, batch[:, 1:, None]).squeeze(-1)
            found: np.ndarray = nll.double().sum(dim=1).cpu().numpy()
            return found

        sums = self._in_batches(windows, range(len(windows)), score, "perplexity")
        nll_sum = np.concatenate(sums) if sums else np.zeros(0)
        if not np.isfinite(nll_sum).all():
            raise EngineError(NOT_FINITE.format("log-likelihoods"))
        return WindowLoss(nll_sum, np.full(len(windows), windows.shape[1] - 1, dtype=np.int64))

    # -- generation ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Completion]:
        """Continue prompts in batches of similar length, padded on the left; the padding changes no result."""
        if not prompts:
            return []
        encoded = self.tokenizer(list(prompts))["input_ids"]
        self.limits.check_prompts(encoded, sampling.max_new_tokens)
        lengths = list(map(len, encoded))
        order = sorted(range(len(prompts)), key=lambda index: (-lengths[index], index))

        seeds = stream_seeds(prompts, sampling.seed)

        def answer(chosen: Sequence[int]) -> list[Completion]:
            rows = [(prompts[index], seeds[index]) for index in chosen]
            return self._generate_batch([row[0] for row in rows], [row[1] for row in rows], sampling)

        def refuse(index: int) -> EngineError:
            what = f"prompt of {lengths[index]} tokens and {sampling.max_new_tokens} new ones"
            return self._out_of_memory(what, "Use a lower generation.max_new_tokens")

        batches, self.generation_batch_size = in_batches(
            order, self.generation_batch_size, answer, refuse, "answering", "prompt"
        )
        completions = dict(zip(order, chain.from_iterable(batches), strict=True))
        return [completions[index] for index in range(len(prompts))]

    def _generate_batch(self, prompts: list[str], seeds: list[int], sampling: Sampling) -> list[Completion]:
        encoded = self.tokenizer(prompts, return_tensors="pt", padding=True).to(self.device)
        mask = encoded["attention_mask"]
        options: dict[str, Any] = {"do_sample": False, "disable_compile": self.eager}
        if mask.device.type != "cpu" and self.layout.static_cache:
            options["cache_implementation"] = "static"  # it does not grow by a copy with every token
        penalty = RepetitionPenalty(sampling.repetition_penalty, mask)
        processors: list[transformers.LogitsProcessor] = [penalty]
        if sampling.temperature > 0:
            processors.append(Sampler(sampling, seeds, mask.shape[1]))
        output = self.model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=mask,
            generation_config=transformers.GenerationConfig(
                max_new_tokens=sampling.max_new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.end_tokens or None,
                bos_token_id=self.tokenizer.bos_token_id,
                **options,
            ),
            logits_processor=transformers.LogitsProcessorList(processors),
            stopping_criteria=transformers.StoppingCriteriaList(
                [StopStrings(sampling.stop, mask.shape[1], self.decode)]
            ),
        )
        if not penalty.finite:
            raise EngineError(NOT_FINITE.format("scores of the next token"))
        answers = output[:, mask.shape[1] :].tolist()
        return [completion(ids, self.end_tokens, sampling.stop, self.decode) for ids in answers]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


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
        self.finite = torch.ones((), dtype=torch.bool, device=prompt_mask.device)
        """Whether the highest score was a number at every step: of NaN, the answer would be some token or none."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.finite &= scores.amax(-1).isfinite().all()
        if self.penalty == 1.0:
            return scores
        real = torch.ones_like(input_ids, dtype=torch.bool)
        real[:, : self.prompt_mask.shape[1]] = self.prompt_mask
        seen = torch.zeros(scores.shape[0], scores.shape[1] + 1, dtype=torch.bool, device=scores.device)
        seen.scatter_(1, input_ids.masked_fill(~real, scores.shape[1]), True)  # padding falls into the extra column
        penalized = torch.where(scores > 0, scores / self.penalty, scores * self.penalty)
        return torch.where(seen[:, :-1], penalized, scores)


class Sampler(transformers.LogitsProcessor):
    """Chooses the next token of every row by a random number of its own; that of `transformers` draws one for all rows.

    The token is the first whose cumulated probability is above the number. All others are ruled out.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int], prompt_length: int) -> None:
        self.temperature, self.prompt_length = sampling.temperature, prompt_length
        streams = [np.random.default_rng(seed).random(sampling.max_new_tokens) for seed in seeds]
        self.numbers = torch.from_numpy(np.stack(streams))
        """float64 `[row, step]`, in [0, 1)."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        number = self.numbers[:, input_ids.shape[1] - self.prompt_length].to(scores.device)
        cumulated = (scores.double() / self.temperature).softmax(-1).cumsum(-1)
        chosen = torch.searchsorted(cumulated, number[:, None] * cumulated[:, -1:], right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


class StopStrings(transformers.StoppingCriteria):
    """Ends a row once its generated text holds a stop string; that of transformers also looks into the prompt.

    It looks every few steps, since decoding takes longer than a step of a small model; `completion` cuts what was
    generated in between.
    """

    STEPS = 8

    def __init__(self, stop: tuple[str, ...], prompt_length: int, decode: Callable[[Sequence[int]], str]) -> None:
        self.stop, self.prompt_length, self.decode = stop, prompt_length, decode
        # A token is at least one byte; some more, for tokens without text and for those that came in between.
        self.tail = max((len(string.encode()) for string in stop), default=0) + 8 + self.STEPS
        self.done: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **options: Any) -> torch.Tensor:
        """Which rows are done, bool `[row]`."""
        if self.done is None:
            self.done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if self.stop and (input_ids.shape[1] - self.prompt_length) % self.STEPS == 0:
            going_on = (~self.done).nonzero().flatten()
            tails = input_ids[going_on, self.prompt_length :][:, -self.tail :].tolist()
            found = [any(string in text for string in self.stop) for text in map(self.decode, tails)]
            self.done[going_on] = torch.tensor(found, dtype=torch.bool, device=input_ids.device)
        return self.done


def down_weight(module: nn.Module) -> torch.Tensor:
    """The weight of a down projection as `[d_model, neuron]`; GPT-2's Conv1D stores it transposed."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.T if isinstance(module, transformers.pytorch_utils.Conv1D) else weight
