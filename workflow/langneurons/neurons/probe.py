"""A linear probe per layer that tells languages apart (after Dalvi et al. 2019, arXiv 1812.09355)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve

from langneurons.neurons.sentences import SentenceMeans

FOLDS = 5
"""Largest number of parts of the sentences of which each is held out once."""
PENALTY = 1.0
"""Weight of the squared weights beside the mean squared error. Inputs are standardised, so it has no unit; it keeps the
weights of a layer that tells nothing near zero, where they would else fit noise and outrank those of other layers."""


@dataclass(frozen=True)
class Probes:
    """The probes of all layers."""

    weights: dict[str, np.ndarray]
    """By language, float64 `[layer, neuron]`: what one standard deviation of a neuron adds to the score of the
    language, whose target is 1 on its sentences and -1 on all others."""
    accuracy_by_layer: list[float]
    """Share of held-out sentences whose language is told, the mean over languages."""


def fit_probes(sentences: dict[str, SentenceMeans]) -> Probes:
    """Fit one linear classifier of languages per layer on the mean activations of sentences.

    The paper ranks neurons by the weights of a linear classifier, with an elastic net. Here it is ridge classification,
    which has a closed form, so that the same sentences give the same neurons. Of each language it minimises
    `mean_s (w x_s + b - y_s)^2 + PENALTY |w|^2` with standardised activations x and y = 1 or -1. Every language has the
    same weight in all means, however many sentences it has.

    Args:
        sentences: by language, at least two with at least two sentences each, all of one model.

    Returns:
        Weights, and accuracies by cross-validation in `FOLDS` parts (fewer if a language has fewer sentences).
        Neighbouring sentences, which may be of one document, are held out together. Activations are standardised once,
        over all sentences: that uses no label, and one matrix of products serves all parts.
    """
    languages = list(sentences)
    numbers = [len(one.means) for one in sentences.values()]
    labels = np.repeat(np.arange(len(languages)), numbers)
    weights, accuracies = [], []
    for layer in range(sentences[languages[0]].means.shape[1]):
        means = np.concatenate([one.means[:, layer] for one in sentences.values()]).astype(np.float64)
        equal = 1 / (len(languages) * np.array(numbers)[labels])
        standard = _standardise(means, equal)
        products = standard @ standard.T
        dual = _dual_weights(products, labels, equal)
        weights.append(dual.T @ (standard - equal @ standard))
        accuracies.append(_accuracy(products, labels, equal, min(FOLDS, *numbers)))
    by_language = np.stack(weights, axis=1)
    return Probes({language: by_language[index] for index, language in enumerate(languages)}, accuracies)


def _standardise(means: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 of each neuron, every language with the same weight; a constant neuron becomes 0."""
    centred = means - equal @ means
    spread = np.sqrt(equal @ centred**2)
    noise = 10 * np.finfo(np.float64).eps * np.abs(means).max(axis=0, initial=0)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > noise)


def _dual_weights(products: np.ndarray, labels: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """What each sentence adds to the weights, `[sentence, language]`.

    The minimum of the objective in `fit_probes` has w = sum_s a_s (x_s - m) and b = mean y - w m, with m the mean of x,
    where (K + PENALTY diag(1 / weight)) a = y - mean y and K holds the products of the centred x.
    """
    targets = np.where(labels[:, None] == np.arange(labels.max() + 1), 1.0, -1.0)
    share = equal / equal.sum()
    mean = products @ share
    centred = products - mean[:, None] - mean + share @ mean
    return solve(centred + PENALTY * np.diag(1 / share), targets - share @ targets, assume_a="pos")


def _accuracy(products: np.ndarray, labels: np.ndarray, equal: np.ndarray, folds: int) -> float:
    """Mean over languages of the share of held-out sentences whose language is told."""
    by_language = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    parts = [np.array_split(places, folds) for places in by_language]
    told = np.empty_like(labels)
    for fold in range(folds):
        held_out = np.concatenate([part[fold] for part in parts])
        train = np.setdiff1d(np.arange(len(labels)), held_out)
        dual = _dual_weights(products[np.ix_(train, train)], labels[train], equal[train])
        share = equal[train] / equal[train].sum()
        targets = np.where(labels[train][:, None] == np.arange(len(parts)), 1.0, -1.0)
        across = products[np.ix_(held_out, train)]
        mean = products[np.ix_(train, train)] @ share
        scores = (across - (across @ share)[:, None] - mean + share @ mean) @ dual + share @ targets
        told[held_out] = scores.argmax(axis=1)
    return float(np.mean([(told[places] == label).mean() for label, places in enumerate(by_language)]))
