"""The true rule, against a reader's judgement of sentences written here by hand."""

import pytest

from gradworks.data.grammar import rule

E, N, C = "entailment", "neutral", "contradiction"


@pytest.mark.parametrize(
    "premise, hypothesis, label",
    [
        ("The judge called the baker.", "The judge called the baker.", E),
        ("The judge called the baker.", "The baker called the judge.", N),
        ("The judge called the baker.", "The baker was called by the judge.", E),
        ("The judge called the baker.", "The judge was called by the baker.", N),
        ("The judge called the baker.", "Someone called the baker.", E),
        ("The judge called the baker.", "Nobody called the baker.", C),
        ("The judge called the baker.", "An official called the baker.", E),
        ("The judge called the baker.", "A doctor called the baker.", N),
        ("The judge called the baker.", "The judge did not call the baker.", C),
        ("The judge called the baker.", "The judge did not call Anna.", N),
        # places and times: more is not said, less is
        ("The judge slept in the park.", "The judge slept.", E),
        ("The judge slept.", "The judge slept in the park.", N),
        ("The judge slept in the park.", "The judge slept at noon.", N),
        ("The judge never slept.", "The judge slept in the park.", C),
        ("The judge never slept.", "The judge did not sleep in the park.", E),
        ("The judge slept in the park.", "The judge did not sleep.", C),
        ("The judge did not sleep in the park.", "The judge slept.", N),
        # words that imply or exclude each other
        ("The judge whispered.", "The judge spoke.", E),
        ("The judge spoke.", "The judge whispered.", N),
        ("The judge never spoke.", "The judge whispered.", C),
        ("Anna praised the judge.", "Anna criticized the judge.", C),
        ("Anna applauded the judge.", "Anna criticized the judge.", C),
        ("Anna did not praise the judge.", "Anna criticized the judge.", N),
        ("The sad judge slept.", "The judge was happy.", C),
        ("The sad judge slept.", "The judge was sad.", E),
        ("The judge slept.", "The sad judge slept.", N),
        # who
        ("The judge who called the baker slept.", "The baker slept.", N),
        ("The judge who called the baker slept.", "The judge called the baker.", E),
        ("The judge who the baker called slept.", "The judge called the baker.", N),
        ("The judge who the baker called slept.", "The baker called the judge.", E),
        ("The judge who never slept called the baker.", "The judge slept.", C),
        ("The judge near the baker slept.", "The baker slept.", N),
        # coordination
        ("The judge and the baker slept.", "The baker slept.", E),
        ("The judge but not the baker slept.", "The baker slept.", C),
        ("Neither the judge nor the baker slept.", "The judge slept.", C),
        ("Anna called the judge but not the baker.", "Anna called the baker.", C),
        ("Anna called the judge and the baker.", "Anna called the baker.", E),
        ("Anna called the judge and the baker slept.", "Anna called the baker.", N),
        ("Anna called the judge and the baker slept.", "The baker slept.", E),
        # clauses
        ("If the judge slept, Anna called the baker.", "Anna called the baker.", N),
        ("Anna called the baker unless the judge slept.", "Anna called the baker.", N),
        ("Because the judge slept, Anna called the baker.", "The judge slept.", E),
        ("Either the judge slept or Anna called the baker.", "The judge slept.", N),
        ("Perhaps the judge slept.", "The judge slept.", N),
        ("Of course the judge slept.", "The judge slept.", E),
        ("It is not true that the judge slept.", "The judge slept.", C),
        ("Anna knew that the judge slept.", "The judge slept.", E),
        ("Anna hoped that the judge slept.", "The judge slept.", N),
        ("Anna wrongly believed that the judge slept.", "The judge slept.", C),
        ("Anna feared the judge slept.", "Anna feared the judge.", N),
        ("Anna feared the judge.", "Anna feared the judge.", E),
        # words that differ by case alone
        ("The judge lost hope.", "The judge lost Hope.", N),
        ("The judge trusted us.", "The judge trusted US.", N),
        ("Hope lost hope.", "Hope lost Hope.", N),
        ("Baker slept.", "The baker slept.", N),
    ],
)
def test_judgements(premise, hypothesis, label):
    assert rule(premise, hypothesis) == label


@pytest.mark.parametrize(
    "text", ["", "The judge.", "The judge glorked.", "The judge slept the baker.", "Judge the slept."]
)
def test_what_is_not_of_the_grammar_is_refused(text):
    with pytest.raises(ValueError, match="not of the grammar"):
        rule(text, "Anna slept.")
    with pytest.raises(ValueError, match="not of the grammar"):
        rule("Anna slept.", text)
