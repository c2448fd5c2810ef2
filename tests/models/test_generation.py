"""Models that write text: what they write token by token, adapters, checkpoints of transformers, chat templates."""

import numpy as np
import pytest
import torch

from gradworks import models, predict
from gradworks.base.errors import InputError
from gradworks.methods import Method
from tests import written
from tests.tasks.test_written import every


def test_a_model_that_gives_all_logits_is_cut_to_the_last():
    kind, model = written.kind("causal"), written.model("causal").eval()
    batch = written.examples(kind, model).batch([0, 1, 2])
    expected = kind.outputs(model, batch)[0]
    model._keeps = False  # as of models whose forward has no logits_to_keep
    assert torch.allclose(kind.outputs(model, batch)[0], expected)


def greedy(name, model, inputs, most):
    """One token after another, of one example without padding."""
    prompt, made = inputs["input_ids"].tolist(), []
    for _ in range(most):
        if name == "causal":
            logits = model.lm(input_ids=torch.tensor([prompt + made])).logits[0, -1]
        else:
            start = model.sizes.decoder_start_token_id
            logits = model.lm(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[start, *made]]))
            logits = logits.logits[0, -1]
        made.append(int(logits.argmax()))
        if made[-1] in model.config["end"]:
            return model.tokenizer.decode(made[:-1]).strip()
    return model.tokenizer.decode(made).strip()


@every
def test_what_is_written_is_the_likeliest_token_after_the_other(name, architecture):
    kind, model = written.kind(name, **({"beams": 1} if name == "seq2seq" else {})), written.model(name, architecture)
    data = written.examples(kind, model)
    optimizer = torch.optim.AdamW(model.parameters(), 0.02)
    for step in range(60):  # so that it writes words, and ends
        Method(task=kind, seed=0).backward(model, [[data.batch([(8 * step + i) % 32 for i in range(8)])]])
        optimizer.step()
    found = predict.answers(model, kind, data, batch_size=5)
    model.eval()
    for i in range(0, 32, 3):
        one = data.batch([i])
        inputs = {"input_ids": one.inputs["input_ids"][0]}
        if name == "causal":
            inputs["input_ids"] = inputs["input_ids"][: int(one.inputs["prompt"][0])]
        assert found["text"][i] == greedy(name, model, inputs, 7)
        losses = kind.loss(tuple(z.float() for z in kind.outputs(model, one)), one)
        assert found["nll"][i] == pytest.approx(float(losses[0] * one.mass[0]), rel=1e-5)
    assert found["tokens"].tolist() == [float(data.batch([i]).mass[0]) for i in range(32)]
    assert len(set(found["text"])) > 1  # it writes different things
    quick = predict.answers(model, kind.scoring(["perplexity"]), data, batch_size=5)
    assert set(quick["text"]) == {""} and np.allclose(quick["nll"], found["nll"], rtol=1e-6)
    assert kind.scoring(["perplexity", "exact_match"])._writes


@pytest.mark.parametrize("name", written.ARCHITECTURES)
def test_adapters_alone_are_trained_and_come_back_from_a_folder(name, tmp_path):
    kind, model = written.kind(name), written.model(name, lora=True).float()
    before = {key: p.clone() for key, p in model.named_parameters()}
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in key for key in trained)
    data = written.examples(kind, model)
    optimizer = torch.optim.AdamW(models.parameter_groups(model, 0.01), 0.05)
    for _ in range(3):
        Method(task=kind, seed=0).backward(model, [[data.batch(list(range(8)))]])
        optimizer.step()
    assert {key for key, p in model.named_parameters() if not torch.equal(p, before[key])} == trained
    models.save(model, tmp_path / "m")
    again = models.load(tmp_path / "m")
    assert {key for key, p in again.named_parameters() if p.requires_grad} == trained
    assert (predict.answers(again, kind, data) == predict.answers(model, kind, data)).all()


@pytest.mark.parametrize("name", written.ARCHITECTURES)
def test_a_checkpoint_of_transformers_is_read_whole_and_a_damaged_one_refused(name, tmp_path):
    from transformers import PreTrainedTokenizerFast

    made = written.model(name, dropout=0.0).float()
    made.lm.save_pretrained(tmp_path / "hf")
    PreTrainedTokenizerFast(tokenizer_object=made.tokenizer, eos_token="[EOS]", pad_token="[PAD]").save_pretrained(
        tmp_path / "hf"
    )
    found = models.find(name)
    options = found.Options.model_validate({"model": name, "from": str(tmp_path / "hf")})
    (tmp_path / "start").mkdir()
    found.adopt(options, tmp_path / "start", "p: pretrain.x")
    model, kind = models.create(tmp_path / "start", 0, 5).eval(), written.kind(name)
    assert model.config["end"] == [1] and model.config["pad"] == 0
    batch = written.examples(kind, model).batch([0, 1, 2])
    assert torch.allclose(kind.outputs(model, batch)[0], kind.outputs(made.eval(), batch)[0], atol=1e-5)
    with pytest.raises(InputError, match=r"has no head for a task of another kind\nexpected a task of the kind causal"):
        models.create(tmp_path / "start", 3, 0)
    if name == "seq2seq":
        encoder = models.find("transformer")
        asked = encoder.Options.model_validate({"model": "transformer", "from": str(tmp_path / "hf")})
        with pytest.raises(
            InputError, match=r"x.from: .*: found t5, an encoder with a decoder\nexpected model: seq2seq"
        ):
            encoder.adopt(asked, tmp_path / "start", "p: pretrain.x")
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "hf/model.safetensors")
    gone = next(key for key in tensors if "layer" in key or "block" in key)
    save_file(
        {key: t for key, t in tensors.items() if key != gone}, tmp_path / "hf/model.safetensors", {"format": "pt"}
    )
    with pytest.raises(InputError, match=f"p: pretrain.x.from: .*no tensor '{gone}'"):
        found.adopt(options, tmp_path / "start", "p: pretrain.x")


CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_a_chat_template_writes_prompt_and_response(tmp_path):
    kind, model = written.kind("causal", chat=True, system="Be short.", max_response=20), written.model("causal")
    with pytest.raises(InputError, match="chat: the model has no chat template"):
        written.examples(kind, model, max_length=63)
    model.chat = CHAT
    data = written.examples(kind, model, n=4, max_length=63)
    row, label = data.batch([2]), "red moon blue"  # of written.table
    prompt = int(row.inputs["prompt"][0])
    ids = row.inputs["input_ids"][0]
    texts = written.table(4).to_pylist()[2]
    decode = model.tokenizer.decode
    assert f"<system>Be short.</s><user>{texts['one']}\n{texts['two']}</s><assistant>".endswith(
        decode(ids[:prompt].tolist())
    )
    assert decode(row.labels[0].tolist()) == f"{texts['label']}</s>" and label
    model.chat = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}?{% endif %}"
    with pytest.raises(InputError, match="does not write a response behind its prompt"):
        written.examples(kind, model, max_length=63)
    models.save(written.model("causal"), tmp_path / "none")
    model.chat = CHAT
    models.save(model, tmp_path / "chat")
    assert models.load(tmp_path / "chat").chat == CHAT and models.load(tmp_path / "none").chat == ""


def test_prompts_are_cut_at_their_start_and_responses_at_their_end():
    model = written.model("causal")
    encodings, responses, starts = model.exchanges(["red blue cat dog sun moon"], ["tree cat red blue dog"], 8, 4)
    whole = model.tokens(["red blue cat dog sun moon", "tree cat red blue dog"], special=True)
    assert responses == [whole[1][:4]] and starts == [4]
    assert encodings == [{"input_ids": [*whole[0][-4:], *whole[1][:3]], "prompt": 4}]
    _, (short,), _ = model.exchanges(["red"], ["cat"], 12, 6)
    assert short == [*model.tokens(["cat"], True)[0], 1]
    other = written.model("seq2seq")
    encodings, responses, _ = other.exchanges(["red blue cat dog sun moon"], ["tree cat red blue dog"], 4, 4)
    assert responses == [whole[1][:4]] and encodings == [{"input_ids": [*whole[0][:3], whole[0][-1]]}]
