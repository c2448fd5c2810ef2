"""Of which cells an ensemble is made: several conditions and methods, rules."""

from tests.base.test_cells import defined


def test_an_ensemble_of_several_conditions_and_another_rule(tmp_path):
    def change(values):
        values["corrupt"]["conditions"] |= {"split-1": {"split_seed": 1}}
        values["cells"]["grid"].append({"condition": ["split-1"], "method": ["erm"], "encoder": ["gru", "cased"]})
        wide = {"condition": ["clean", "split-1"], "method": "erm", "encoders": ["gru", "cased"], "rule": "greedy"}
        values["ensemble"].append(wide)

    made = defined(tmp_path, change)
    wide, one = made["ensemble@clean+split-1-erm-gru+cased-greedy"], made["ensemble@clean-erm-gru+cased"]
    assert "--members runs/evaluate/clean/erm runs/evaluate/split-1/erm --rule greedy" in wide["cmd"]
    assert {"runs/evaluate/clean/erm", "runs/evaluate/split-1/erm"} < set(wide["deps"])
    assert "--members runs/evaluate/clean/erm --out" in one["cmd"] and "runs/evaluate/split-1/erm" not in one["deps"]
