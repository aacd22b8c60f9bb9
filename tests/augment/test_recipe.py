"""Recipes: what is refused and in which words, and what a sample's address decides."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr import rng
from khmer_ocr.augment.limits import ABOUT, LIMITS
from khmer_ocr.augment.recipe import (
    FUSED_OPS,
    MIXED,
    STRENGTHS,
    load_recipe,
    parse_recipe,
    recipe_names,
)
from khmer_ocr.errors import ConfigError

KEY_2 = rng.key(5, "train", "augment")
BLUR = {"op": "blur", "probability": 0.5, "sigma_px": [0, 1]}
NOISE = {"op": "noise", "probability": [0.1, 0.5, 0.9], "sd_grey": [[1, 2], [3, 5], [6, 9]]}


def content(*steps, engine="kornia", name="mine"):
    return {"name": name, "engine": engine, "steps": list(steps)}


def addresses(*numbers):
    return np.array(numbers, np.uint64)


REFUSED = {
    "unknown op": (
        content({**BLUR, "op": "blurr"}),
        "step 1: unknown op 'blurr' for engine kornia. Did you mean 'blur'?",
    ),
    "colour": (
        content({"op": "color_jitter", "probability": 1}),
        "unknown op 'color_jitter' for engine kornia. It sounds like one of colour, and lines are grey. Known: two_",
    ),
    "hue": (content({"op": "random_hue", "probability": 1}), "one of colour, and lines are grey"),
    "grayscale": (content({"op": "RGBShift", "probability": 1}), "one of colour, and lines are grey"),
    "op is a list": (content({**BLUR, "op": ["blur"]}), "unknown op ['blur'] for engine kornia. Did you mean 'blur'?"),
    "op of the other engine": (
        content({"op": "jpeg", "probability": 1, "quality": [30, 90]}, engine="fused"),
        "unknown op 'jpeg' for engine fused. The engine kornia has it. Known: morphology, blur, noise",
    ),
    "probability 2": (
        content({**BLUR, "probability": 2}),
        "step 1 (blur): probability is 2; expected a number from 0 to 1, or three of them",
    ),
    "probability below 0": (content({**BLUR, "probability": [0, -0.1, 0]}), "probability is -0.1; expected"),
    "probability of two strengths": (
        content({**BLUR, "probability": [0, 1]}),
        "probability is [0, 1]; expected a number",
    ),
    "probability is true": (content({**BLUR, "probability": True}), "probability is True; expected a number"),
    "probability is not a number": (content({**BLUR, "probability": float("nan")}), "probability is nan; expected"),
    "no probability": (content({"op": "blur", "sigma_px": [0, 1]}), "step 1 (blur): 'probability' is missing"),
    "sigma below 0": (
        content({**BLUR, "sigma_px": [-0.5, 1]}),
        "step 1 (blur): sigma_px is -0.5; expected a number from 0 to 5, or three of them",
    ),
    "sigma below 0 when heavy": (content({**BLUR, "sigma_px": [[0, 1], [0, 1], [-1, 1]]}), "sigma_px is -1; expected"),
    "sigma above its limit": (
        content({**BLUR, "sigma_px": [0, 5.1]}),
        "sigma_px is 5.1; expected a number from 0 to 5",
    ),
    "sigma in words": (content({**BLUR, "sigma_px": ["a", "b"]}), "sigma_px is 'a'; expected a number"),
    "one sigma": (content({**BLUR, "sigma_px": 1}), "sigma_px is 1; expected [lowest, highest]"),
    "sigma backwards": (content({**BLUR, "sigma_px": [1, 0]}), "sigma_px is [1, 0]; the lower value comes first"),
    "no sigma": (content({"op": "blur", "probability": 1}), "step 1 (blur): 'sigma_px' is missing"),
    "unknown parameter": (
        content(BLUR, {**NOISE, "sd_gray": [0, 1]}),
        "step 2 (noise): unknown parameter 'sd_gray'. Did you mean 'sd_grey'? Known: sd_grey",
    ),
    "order": (
        content(NOISE, BLUR),
        "blur can't come after noise; each op once, in this order: two_parts, underline, morphology",
    ),
    "twice": (content(BLUR, BLUR), "blur can't come after blur; each op once"),
    "engine": (content(BLUR, engine="opencv"), "engine is 'opencv'; expected one of fused, kornia"),
    "a step in words": (content("blur"), "step 1: 'blur'; expected `op`, `probability` and a range"),
    "no steps": (content(), "no steps. Use the recipe none for clean lines"),
    "steps not a list": ({**content(), "steps": {"blur": 1}}, "expected keys `name`, `engine` and `steps`"),
    "empty": (None, "expected keys `name`, `engine` and `steps`"),
    "a list": ([BLUR], "expected keys `name`, `engine` and `steps`"),
    "unknown key": ({**content(BLUR), "strength": "mild"}, "unknown key 'strength'; expected name, engine, steps"),
    "no name": ({"steps": [BLUR]}, "name is None; expected a name of your own"),
    "named none": (content(BLUR, name="none"), "name is 'none'; expected a name of your own"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_op_can_do_is_refused_in_words(case, tmp_path):
    given_content, message = REFUSED[case]
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(given_content), encoding="utf-8")
    with pytest.raises(ConfigError) as refusal:
        load_recipe(file)
    assert message in str(refusal.value) and str(refusal.value).startswith(str(file))


def test_a_file_that_is_missing_binary_or_no_yaml(tmp_path):
    with pytest.raises(ConfigError, match=r"Recipe .*gone\.yaml can't be read \(.*No such file"):
        load_recipe(tmp_path / "gone.yaml")
    broken, binary = tmp_path / "broken.yaml", tmp_path / "binary.yml"
    broken.write_text("steps: [\n  - {", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.yaml can't be read as YAML"):
        load_recipe(broken)
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yml can't be read"):
        load_recipe(binary)
    with pytest.raises(ConfigError, match="can't be read"):
        load_recipe(tmp_path.rename(tmp_path.with_name("folder.yaml")))


def test_names_and_strengths():
    with pytest.raises(
        ConfigError, match=r"no recipe 'scann'. Did you mean 'scan'\? Known: none, basic, scan, train, or a"
    ):
        load_recipe("scann")
    with pytest.raises(ConfigError, match=r"no recipe 'nonne'. Did you mean 'none'\?"):
        load_recipe("nonne")
    for name in ("none", "basic"):
        with pytest.raises(ConfigError, match="strength is 'strong'; expected one of mild, medium, heavy, mixed"):
            load_recipe(name, "strong")
    assert load_recipe("none") is None
    assert [load_recipe("basic", strength).strength for strength in (*STRENGTHS, MIXED)] == [*STRENGTHS, MIXED]
    assert load_recipe("basic").strength == "medium"


def test_train_leaves_a_third_of_the_lines_nearly_clean_and_moves_most():
    recipe = load_recipe("train", MIXED)
    augment_plan = recipe.draw(rng.key(1, "train", "augment"), np.arange(6000, dtype=np.uint64))
    active = {step.op: row_B for step, row_B in zip(recipe.steps, augment_plan.active_SB, strict=True)}
    dirt_B = sum(row_B.astype(int) for op, row_B in active.items() if op != "geometry")
    mild_B = augment_plan.strength_B == 0
    assert 0.3 < mild_B.mean() < 0.36
    assert dirt_B[mild_B].mean() < 3 < dirt_B[~mild_B].mean()
    assert 0.75 < active["geometry"].mean() < 0.88
    scale = augment_plan.values_S[list(active).index("geometry")]["scale"]
    assert scale.min() < 0.7 and scale.max() > 1.2
    assert list(active) == list(LIMITS)


@pytest.mark.parametrize("strength", [*STRENGTHS, MIXED])
@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_parse_and_survive_their_own_fingerprint(name, strength):
    recipe = load_recipe(name, strength)
    assert recipe.name == name
    recorded = recipe.fingerprint()
    assert recorded == json.loads(json.dumps(recorded))
    again = parse_recipe({key: recorded[key] for key in ("name", "engine", "steps")}, recorded["strength"], "metadata")
    assert again == recipe and again.fingerprint() == recorded


def test_scan_has_every_op_and_basic_the_fused_ones():
    assert [step.op for step in load_recipe("scan").steps] == list(LIMITS) == list(ABOUT)
    basic = load_recipe("basic")
    assert basic.engine == "fused" and tuple(step.op for step in basic.steps) == FUSED_OPS
    assert all(step.probability_3 == (0.5, 0.5, 0.5) for step in basic.steps)


RECIPES = {name: load_recipe(name, MIXED) for name in recipe_names()}


@given(
    st.sampled_from(sorted(RECIPES)),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_what_happens_to_a_sample_depends_on_its_number_alone(name, numbers, random):
    recipe, shuffled = RECIPES[name], numbers.copy()
    random.shuffle(shuffled)
    together = recipe.draw(KEY_2, addresses(*shuffled))
    for at, number in enumerate(shuffled):
        alone = recipe.draw(KEY_2, addresses(number))
        assert recipe.record(together, at) == recipe.record(alone, 0)
        assert np.array_equal(together.key_B2[at], alone.key_B2[0])
        assert np.array_equal(together.active_SB[:, at], alone.active_SB[:, 0])


def test_another_seed_or_sample_draws_otherwise():
    recipe, number_B = load_recipe("scan"), np.arange(200, dtype=np.uint64)
    one, other = (recipe.draw(rng.key(seed, "train", "augment"), number_B) for seed in (1, 2))
    assert len({tuple(key) for plan in (one, other) for key in plan.key_B2.tolist()}) == 400
    assert (one.active_SB != other.active_SB).mean() > 0.2
    records = {json.dumps(recipe.record(one, n)) for n in range(200)}
    assert len(records) > 195


@pytest.mark.parametrize("strength", STRENGTHS)
def test_ops_happen_as_often_and_parameters_lie_as_evenly_as_asked(strength):
    recipe = parse_recipe(content(BLUR, NOISE), strength, "test")
    lines = 40_000
    augment_plan = recipe.draw(KEY_2, np.arange(lines, dtype=np.uint64))
    at = STRENGTHS.index(strength)
    sigmas = 4.5 / np.sqrt(lines)
    assert augment_plan.active_SB[0].mean() == pytest.approx(0.5, abs=sigmas * 0.5)
    share = (0.1, 0.5, 0.9)[at]
    assert augment_plan.active_SB[1].mean() == pytest.approx(share, abs=sigmas * np.sqrt(share * (1 - share)))
    assert np.corrcoef(augment_plan.active_SB)[0, 1] == pytest.approx(0, abs=sigmas)
    low, high = ((1, 2), (3, 5), (6, 9))[at]
    value_B = augment_plan.values_S[1]["sd_grey"]
    assert value_B.min() >= low and value_B.max() <= high
    counts = np.histogram(value_B, 10, (low, high))[0]
    assert counts.max() - counts.min() < 9 * np.sqrt(lines / 10)
    assert np.corrcoef(value_B, augment_plan.active_SB[1])[0, 1] == pytest.approx(0, abs=sigmas)
    assert np.corrcoef(value_B, augment_plan.values_S[0]["sigma_px"])[0, 1] == pytest.approx(0, abs=sigmas)
    assert (augment_plan.strength_B == at).all()


def test_of_mixed_strength_a_third_is_of_each_and_says_so():
    recipe = parse_recipe(content(NOISE), MIXED, "test")
    augment_plan = recipe.draw(KEY_2, np.arange(30_000, dtype=np.uint64))
    assert np.bincount(augment_plan.strength_B) == pytest.approx([10_000] * 3, abs=4.5 * np.sqrt(30_000 * 2 / 9))
    for at, (low, high) in enumerate(((1, 2), (3, 5), (6, 9))):
        of_it = augment_plan.strength_B == at
        assert augment_plan.active_SB[0, of_it].mean() == pytest.approx((0.1, 0.5, 0.9)[at], abs=0.03)
        assert (
            low
            <= augment_plan.values_S[0]["sd_grey"][of_it].min()
            <= augment_plan.values_S[0]["sd_grey"][of_it].max()
            <= high
        )
        assert recipe.record(augment_plan, int(of_it.argmax()))["strength"] == STRENGTHS[at]


@pytest.mark.parametrize("probability", [0, 1])
def test_never_and_always(probability):
    recipe = parse_recipe(content({**BLUR, "probability": probability}), "mild", "test")
    augment_plan = recipe.draw(KEY_2, np.arange(5_000, dtype=np.uint64))
    assert (augment_plan.active_SB == bool(probability)).all()
    assert recipe.record(augment_plan, 7) == (
        {"blur": {"sigma_px": augment_plan.values_S[0]["sigma_px"][7]}} if probability else {}
    )


def test_a_record_holds_in_order_what_was_drawn_and_nothing_else():
    recipe = load_recipe("scan", "heavy")
    augment_plan = recipe.draw(KEY_2, np.arange(50, dtype=np.uint64))
    for n in range(50):
        record = recipe.record(augment_plan, n)
        assert list(record) == [
            step.op for step, active in zip(recipe.steps, augment_plan.active_SB[:, n], strict=True) if active
        ]
        for step, values in zip(recipe.steps, augment_plan.values_S, strict=True):
            if step.op in record:
                assert record[step.op] == {name: value_B[n] for name, value_B in values.items()}
                assert json.loads(json.dumps(record[step.op])) == record[step.op]


def test_a_value_for_all_strengths_is_as_good_as_three(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nsteps:\n  - {op: blur, probability: 1, sigma_px: [0.5, 1]}\n", encoding="utf-8")
    recipe = load_recipe(str(file), "heavy")
    assert recipe is not None and recipe.engine == "kornia" and recipe.steps[0].ranges["sigma_px"] == ((0.5, 1.0),) * 3
    assert recipe.steps[0].probability_3 == (1.0, 1.0, 1.0)
