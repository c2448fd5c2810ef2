"""Keys of an encoder in params.yaml; those of one kind of model alone are in its file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gradworks.base import Section


class Vectors(Section):
    """Word vectors from a file in the text format of GloVe: a word and its numbers on each line.

    file: relative to the project. frozen: they are not trained.
    """

    file: str
    frozen: bool = True


class Encoder(Section):
    """How texts become tokens.

    vocabulary: tokens at most. vocabulary_file: a vocabulary that is given, one token per line.
    """

    model: str
    lowercase: bool = True
    vocabulary: int | None = Field(default=None, ge=10)
    vocabulary_file: str | None = None


class TwoTowers(Encoder):
    """An encoder of single texts whose features of a pair go into a multilayer perceptron.

    embedding: width of the token embeddings. layers: of the perceptron, the head included. dropout: in training.
    """

    vectors: Vectors | None = None
    embedding: int | None = Field(default=None, ge=1)
    layers: int = Field(default=4, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_source(self) -> TwoTowers:
        if self.vectors and (self.embedding or self.vocabulary_file):
            raise ValueError("vectors bring their own width and vocabulary: leave embedding and vocabulary_file out")
        if not self.vectors and not self.embedding:
            raise ValueError("one of embedding and vectors is needed")
        return self


Pooling = Literal["last", "mean", "max"]


class Pretrain(Section):
    """Masked-language-model training (Devlin et al. 2019, section 3.1).

    Attributes:
        steps: optimizer steps; batch: sequences of a step; max_length: tokens of a sequence.
        learning_rate: peak; rises linearly for `warmup` (a fraction of the steps) and falls linearly to zero.
        mask: share of the tokens that are predicted.
        next_sentence: also predict whether the second text belongs to the first; half of them are exchanged.
        corpus: a text file, one sentence per line, plain, .gz or .xz; without it the texts of the training split.
        lines: how many lines of the corpus are read, from its start; all when it is not given.
        held_out: share of the sequences on which the loss is only measured.
    """

    steps: int = Field(ge=1)
    batch: int = Field(default=32, ge=1)
    max_length: int = Field(default=64, ge=8)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    mask: float = Field(default=0.15, gt=0, lt=1)
    next_sentence: bool = False
    corpus: str | None = None
    lines: int | None = Field(default=None, ge=1)
    held_out: float = Field(default=0.02, gt=0, le=0.5)
    seed: int = 0


class AutoModelOptions(Encoder):
    """Either `from`, or the sizes of a new BERT.

    Attributes:
        from_: a folder relative to the project, or a name on the Hugging Face hub with its `revision`.
        pooling: the vector that is classified: cls (the state of the first token), pooler (that, through a trained
            layer with tanh), mean (over all tokens).
        pair: how two texts are read: cross, in one sequence; bi, each in one of its own, see `pairs.py`.
        attention: sdpa | eager; eager can be differentiated twice. None: what transformers takes.
    """

    from_: str | None = Field(default=None, alias="from")
    revision: str | None = None
    layers: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    heads: int | None = Field(default=None, ge=1)
    intermediate: int | None = Field(default=None, ge=1)
    positions: int = Field(default=512, ge=8)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    pooling: Literal["cls", "pooler", "mean"] = "cls"
    pair: Literal["cross", "bi"] = "cross"
    attention: Literal["sdpa", "eager"] | None = None
    pretrain: Pretrain | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> AutoModelOptions:
        sizes = [self.layers, self.width, self.heads]
        if self.from_ and (any(sizes) or self.intermediate or self.vocabulary or self.vocabulary_file):
            raise ValueError("`from` brings its own sizes and vocabulary")
        if not self.from_ and not all(sizes):
            raise ValueError("layers, width and heads are needed, or `from`")
        if self.width and self.heads and self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if self.revision and not self.from_:
            raise ValueError("revision is one of `from`")
        if self.pretrain and self.pretrain.max_length > self.positions:
            raise ValueError(f"pretrain.max_length {self.pretrain.max_length} exceeds positions {self.positions}")
        return self
