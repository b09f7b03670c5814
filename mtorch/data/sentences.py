"""Sentences in which the order of the words decides, and nothing else does."""

from typing import Any

import numpy

from mtorch.checks import check_memory, check_size
from mtorch.initializers import as_generator

CATS = ("felix", "kitty", "luna", "tom")
DOGS = ("fido", "laika", "lassie", "rex")
OPENINGS = ("", "today", "as ever", "now and then", "in the morning")
VERBS = ("chased", "greeted", "heard", "ignored", "outwitted", "watched")
PLACES = ("", "at home", "in the garden", "by the old river", "on the stairs")
FRAMES = ("{opening} {first} {verb} {second} {place}", "{opening} {first} was {verb} by {second} {place}")

# Id 0 is no word: it fills sentences up to the longest.
WORDS = ("", *sorted({word for text in (*CATS, *DOGS, *OPENINGS, *VERBS, *PLACES, "was by") for word in text.split()}))
LENGTH = 12


def who_acts(pairs: int = 500, rng: Any = None) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Sentences about a cat and a dog, and who of them acts: ids (T, N) int64 with N = 2 pairs, labels (N,), 1 the dog.

    "luna chased rex" and "rex chased luna" come as a pair, and so do "luna was chased by rex" and "rex was chased by
    luna": one multiset of words, two answers. Whoever only counts words is right half of the time.
    """
    pairs, rng = check_size("who_acts", "pairs", pairs), as_generator(rng, "who_acts")
    check_memory("who_acts", 2 * LENGTH * pairs, pairs=pairs)
    ids, labels = numpy.zeros((LENGTH, 2 * pairs), numpy.int64), numpy.zeros(2 * pairs, numpy.int64)
    number = {word: i for i, word in enumerate(WORDS)}
    for pair in range(pairs):
        cat, dog, opening, verb, place = (
            choices[rng.integers(len(choices))] for choices in (CATS, DOGS, OPENINGS, VERBS, PLACES)
        )
        passive = rng.integers(2)
        for column, (first, second) in enumerate(((cat, dog), (dog, cat)), start=2 * pair):
            text = FRAMES[passive].format(opening=opening, first=first, second=second, verb=verb, place=place)
            found = [number[word] for word in text.split()]
            ids[: len(found), column] = found
            labels[column] = (first == dog) != passive
    order = rng.permutation(2 * pairs)
    return ids[:, order], labels[order]
