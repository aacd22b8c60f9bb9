"""Named recipes: what may happen to a training line, and what does happen to sample i (a pure function of its address).

A recipe is a YAML file: a name, an engine, and steps in order, each an op with its probability and the range of each
parameter; a list of three is mild, medium, heavy. Nothing here needs torch.

Letters: B samples, S steps, W random words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from khmer_ocr_kernels.arrays import F64, I64, U32, U64, Bools

from khmer_ocr import rng
from khmer_ocr.augment.limits import LIMITS, Range
from khmer_ocr.constraints import did_you_mean
from khmer_ocr.errors import ConfigError
from khmer_ocr.io.yaml_file import parse_yaml, read_yaml

Strength = Literal["mild", "medium", "heavy", "mixed"]
STRENGTHS = ("mild", "medium", "heavy")
MIXED = "mixed"
"""The strength that every sample draws for itself."""
ENGINES = ("fused", "kornia")
FUSED_OPS = ("morphology", "blur", "noise")
NONE = "none"
_OWN_WORDS = 4  # strength, two of the pixels' key, one to spare
_COLOUR_WORDS = ("color", "colour", "hue", "saturat", "rgb", "hsv", "sepia", "channel")
_DECIMALS = 4
"""Parameters are rounded to what the metadata say, so that an image can be made again from them."""


@dataclass(frozen=True)
class Step:
    """One op of a recipe.

    Attributes:
        op: a name of `limits.LIMITS`.
        probability_3: mild, medium, heavy.
        ranges: for each parameter its ranges (mild, medium, heavy).
    """

    op: str
    probability_3: tuple[float, float, float]
    ranges: Mapping[str, tuple[Range, Range, Range]]


@dataclass(frozen=True)
class AugmentPlan:
    """What happens to a batch of samples.

    Attributes:
        active_SB: bool, which steps happen to which sample.
        values_S: for each step its parameters, float64 (B,) each; of inactive samples they mean nothing.
        key_B2: uint32 Philox keys of the samples' pixels.
        strength_B: numbers of `STRENGTHS`.
    """

    active_SB: Bools
    values_S: tuple[dict[str, F64], ...]
    key_B2: U32
    strength_B: I64


@dataclass(frozen=True)
class Recipe:
    """Steps that training lines may go through.

    Attributes:
        name: what the metadata call it.
        engine: "fused" (integer kernels, the same bytes on every device) or "kornia".
        strength: one of `STRENGTHS`, or `MIXED`.
        steps: in order.
    """

    name: str
    engine: str
    strength: str
    steps: tuple[Step, ...]

    def fingerprint(self) -> dict[str, Any]:
        """Everything the bytes depend on, as JSON."""
        steps = [
            {"op": step.op, "probability": list(step.probability_3)}
            | {name: [list(one) for one in three] for name, three in step.ranges.items()}
            for step in self.steps
        ]
        return {"name": self.name, "engine": self.engine, "strength": self.strength, "steps": steps}

    def draw(self, key_2: U32, address_B: U64) -> AugmentPlan:
        """Decide what happens to samples.

        Args:
            key_2: from `rng.key(seed, split, "augment")`.
            address_B: uint64 sample numbers.

        Returns:
            Steps, parameters and pixel keys; those of a sample do not depend on the others.
        """
        words = _OWN_WORDS + sum(1 + len(step.ranges) for step in self.steps)
        word_BW = rng.draws(key_2, address_B, words)
        if self.strength == MIXED:
            strength_B = rng.below(word_BW[:, 0], len(STRENGTHS))
        else:
            strength_B = np.full(len(address_B), STRENGTHS.index(self.strength))
        active_SB, values_S, at = np.zeros((len(self.steps), len(address_B)), bool), [], _OWN_WORDS
        for number, step in enumerate(self.steps):
            share_BW = word_BW[:, at : at + 1 + len(step.ranges)] / 2.0**32
            active_SB[number] = share_BW[:, 0] < np.array(step.probability_3)[strength_B]
            values = {}
            for n, (name, three) in enumerate(step.ranges.items()):
                low_B, high_B = np.array(three)[strength_B].T
                values[name] = np.round(low_B + (high_B - low_B) * share_BW[:, 1 + n], _DECIMALS)
            values_S.append(values)
            at += 1 + len(step.ranges)
        return AugmentPlan(active_SB, tuple(values_S), word_BW[:, 1:3].copy(), strength_B)

    def record(self, augment_plan: AugmentPlan, sample: int) -> dict[str, Any]:
        """What happened to one sample, for its metadata: op -> parameters, in order."""
        happened: dict[str, Any] = {
            step.op: {name: float(value_B[sample]) for name, value_B in values.items()}
            for step, values, active_B in zip(self.steps, augment_plan.values_S, augment_plan.active_SB, strict=True)
            if active_B[sample]
        }
        return (
            {"strength": STRENGTHS[augment_plan.strength_B[sample]], **happened} if self.strength == MIXED else happened
        )


def recipe_names() -> list[str]:
    """Recipes that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _shipped().iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name: str | Path, strength: str = "medium") -> Recipe | None:
    """Read a recipe.

    Args:
        name: "none", a shipped recipe, or a YAML file of one's own.
        strength: one of `STRENGTHS`, or `MIXED`.

    Returns:
        The recipe, None for "none".

    Raises:
        ConfigError: no such recipe or strength, or the file asks for what no op can do.
    """
    if strength not in (*STRENGTHS, MIXED):
        raise ConfigError(f"strength is {strength!r}; expected one of {', '.join((*STRENGTHS, MIXED))}")
    if str(name) == NONE:
        return None
    known = recipe_names()
    path = Path(name)
    if str(name) in known:
        where = f"recipe {name}"
        content = parse_yaml((_shipped() / f"{name}.yaml").read_text(encoding="utf-8"), where)
    elif path.suffix in (".yaml", ".yml"):
        where = str(path)
        try:
            content = read_yaml(path)
        except FileNotFoundError as error:
            raise ConfigError(f"Recipe {path} can't be read (No such file or directory)") from error
    else:
        hint = did_you_mean(name, [NONE, *known])
        raise ConfigError(
            f"There is no recipe {str(name)!r:.100}.{hint} Known: none, {', '.join(known)}, or a .yaml file"
        )
    return parse_recipe(content, strength, where)


def _shipped() -> Any:
    return files("khmer_ocr.augment") / "recipes"


def parse_recipe(content: Any, strength: str, where: str) -> Recipe:
    """Check a recipe's content against `limits.LIMITS`.

    Args:
        content: what the YAML holds.
        strength: one of `STRENGTHS`, or `MIXED`.
        where: the file, for messages.

    Raises:
        ConfigError: an unknown key, op or parameter, a value out of range, ops in an order that can't be.
    """
    if not isinstance(content, dict) or not isinstance(content.get("steps"), list):
        raise ConfigError(f"{where}: expected keys `name`, `engine` and `steps`, the steps as a list")
    if unknown := [key for key in content if key not in ("name", "engine", "steps")]:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r:.100}; expected name, engine, steps")
    engine = content.get("engine", "kornia")
    if engine not in ENGINES:
        raise ConfigError(f"{where}: engine is {engine!r:.100}; expected one of {', '.join(ENGINES)}")
    name = content.get("name")
    if not isinstance(name, str) or not name or name == NONE:
        raise ConfigError(f"{where}: name is {name!r:.100}; expected a name of your own")
    known = FUSED_OPS if engine == "fused" else tuple(LIMITS)
    steps = tuple(_step(entry, known, engine, f"{where}, step {n}") for n, entry in enumerate(content["steps"], 1))
    if not steps:
        raise ConfigError(f"{where}: no steps. Use the recipe none for clean lines.")
    _check_order([step.op for step in steps], known, where)
    return Recipe(name, engine, strength, steps)


def _check_order(ops: Sequence[str], known: Sequence[str], where: str) -> None:
    for before, after in pairwise(ops):
        if known.index(after) <= known.index(before):
            raise ConfigError(
                f"{where}: {after} can't come after {before}; each op once, in this order: {', '.join(known)}"
            )


def _step(entry: Any, known: Sequence[str], engine: Literal["fused", "kornia"], where: str) -> Step:
    if not isinstance(entry, dict) or "op" not in entry:
        raise ConfigError(f"{where}: {entry!r:.100}; expected `op`, `probability` and a range for each parameter")
    op = entry["op"]
    if op not in known:
        hint = did_you_mean(op, known)
        if str(op) in LIMITS:
            hint = " The engine kornia has it."
        if any(word in str(op).lower() for word in _COLOUR_WORDS):
            hint = " It sounds like one of colour, and lines are grey."
        raise ConfigError(f"{where}: unknown op {op!r:.100} for engine {engine}.{hint} Known: {', '.join(known)}")
    where = f"{where} ({op})"
    expected = {"op", "probability", *LIMITS[op]}
    if unknown := [key for key in entry if key not in expected]:
        hint = did_you_mean(unknown[0], expected)
        raise ConfigError(f"{where}: unknown parameter {unknown[0]!r:.100}.{hint} Known: {', '.join(LIMITS[op])}")
    if missing := [key for key in ("probability", *LIMITS[op]) if key not in entry]:
        raise ConfigError(f"{where}: {missing[0]!r} is missing")
    probability_3 = _three(entry["probability"], (0, 1), f"{where}: probability", _number)
    ranges = {name: _three(entry[name], limits, f"{where}: {name}", _range) for name, limits in LIMITS[op].items()}
    return Step(op, probability_3, ranges)


def _three(seen: Any, limits: Range, what: str, read: Any) -> tuple[Any, Any, Any]:
    """One value for all strengths, or a list of three."""
    one_is_list = read is _range
    several = isinstance(seen, list) and (len(seen) == 3 and (not one_is_list or isinstance(seen[0], list)))
    values = seen if several else [seen] * 3
    first, second, third = (read(value, limits, what) for value in values)
    return first, second, third


def _number(seen: Any, limits: Range, what: str) -> float:
    if isinstance(seen, bool) or not isinstance(seen, int | float) or not limits[0] <= seen <= limits[1]:
        raise ConfigError(
            f"{what} is {seen!r:.100}; expected a number from {limits[0]:g} to {limits[1]:g}, or three of them"
        )
    return float(seen)


def _range(seen: Any, limits: Range, what: str) -> Range:
    if not isinstance(seen, list) or len(seen) != 2:
        raise ConfigError(
            f"{what} is {seen!r:.100}; expected [lowest, highest], or three of these (mild, medium, heavy)"
        )
    low, high = _number(seen[0], limits, what), _number(seen[1], limits, what)
    if low > high:
        raise ConfigError(f"{what} is {seen!r:.100}; the lower value comes first")
    return low, high
