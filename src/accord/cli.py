"""The command line: one table of commands, arguments generated from dataclasses, nothing heavy imported before it is needed."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accord import __version__
from accord.arguments import Command, parse
from accord.config.known_names import no_differences
from accord.errors import AccordError, ConfigError
from accord.writing import no_room

_TRAINING = (
    "model",
    "data",
    "eval_data",
    "columns",
    "output_dir",
    "num_train_epochs",
    "learning_rate",
    "per_device_train_batch_size",
    "lora_r",
    "seed",
)
_BEST_OF = ("best_of", "reward", "reward_model")


@dataclass(frozen=True)
class Group:
    title: str
    commands: tuple[Command, ...]


def _train(name: str, summary: str, *shown: str) -> Command:
    online = name in ("ppo", "grpo")
    fields = ("model", "data", "eval_data", "columns", "output_dir", "learning_rate", "lora_r", "seed") if online else _TRAINING
    more = ("accord.config.options:BestOfOptions",) if name == "sft" else ()
    return Command(
        name,
        summary,
        ("accord.config.options:TrainOptions", f"accord.config.{name}:{_config(name)}", *more),
        "accord.recipes.train:run",
        (*fields, *shown),
        positional="data",
    )


def _config(name: str) -> str:
    return f"{name.upper() if name != 'reward' else 'Reward'}Config"


GROUPS = (
    Group(
        "Start",
        (
            Command(
                "demo",
                "align a real model on packaged data, with a report: rlhf, dpo, base, reasoning, hacking, constitution",
                ("accord.config.options:DemoOptions",),
                "accord.recipes.demo:run_demo",
                ("full", "weights", "output_dir", "seed", "force", "dry_run"),
                positional="route",
            ),
            Command(
                "doctor",
                "what this machine can do, what is missing, what will be slow; templates and end tokens",
                ("accord.config.options:DoctorOptions",),
                "accord.commands.doctor:run",
                ("model", "quick"),
                positional="model",
            ),
            Command(
                "plan",
                "which method, why, and a recipe; accord plan METHOD: will it fit, how long",
                (),
                "accord.commands.plan:run",
                (),
                passthrough=True,
            ),
        ),
    ),
    Group(
        "All at once",
        (
            Command(
                "align",
                "SFT, reward model and PPO (or DPO) on your own comparisons, or rounds of fresh labels",
                ("accord.config.options:AlignOptions", "accord.config.rounds:RoundsOptions"),
                "accord.commands.align:run",
                tuple(
                    "data model method columns output_dir max_new_tokens iterations seed dry_run rounds feedback labels reward select no_serve".split()
                ),
                positional="data",
            ),
        ),
    ),
    Group(
        "Train",
        (
            _train("sft", "imitate demonstrations, or the best of sampled answers", "max_length", "loss_aggregation", *_BEST_OF),
            _train("reward", "learn a reward from comparisons", "backbone", "loss", "num_heads"),
            _train("prm", "learn to judge each step of a solution", "backbone", "neutral", "mask_after_first_error", "step_separator"),
            Command(
                "prm label",
                "label steps by sampled completions, for accord prm",
                ("accord.config.options:LabelOptions",),
                "accord.commands.label:run",
                tuple(
                    "data model reward threshold rollouts solutions step_separator max_new_tokens temperature seed columns to force".split()
                ),
                positional="data",
            ),
            _train("dpo", "learn preferences without a reward model", "beta", "loss_type", "sft_coefficient"),
            _train("kto", "learn from single answers marked good or bad", "beta"),
            _train(
                "ppo",
                "maximise a reward near the model it starts from",
                "reward_model",
                "reward",
                "num_iterations",
                "prompts_per_iteration",
                "num_generations",
                "max_new_tokens",
                "kl_coef",
            ),
            _train(
                "grpo",
                "learn from groups of answers scored by rules or a reward model",
                "reward",
                "reward_model",
                "num_generations",
                "per_device_train_batch_size",
                "max_completion_length",
                "max_steps",
                "beta",
            ),
        ),
    ),
    Group(
        "Feedback",
        (
            Command(
                "judge",
                "label comparisons by a model, a server, a reward model or a rule",
                ("accord.config.judge:JudgeOptions",),
                "accord.commands.judge:run",
                tuple("data judge prompt principles to checked human answers limit columns max_tokens max_cost concurrency seed".split()),
                positional="data",
            ),
            Command(
                "judge check",
                "measure a judge on comparisons that people judged, before it is used",
                ("accord.config.judge:CheckOptions",),
                "accord.commands.judge:check",
                tuple("data judge prompt principles to answers limit columns max_tokens max_cost concurrency seed".split()),
                positional="data",
            ),
            Command(
                "constitution",
                "train by principles: critiques, revisions, compared answers (Constitutional AI)",
                ("accord.config.constitution:ConstitutionOptions",),
                "accord.recipes.constitution:run",
                tuple(
                    "data model constitution critic judge rl rounds helpful safe pairs limit output_dir max_new_tokens seed dry_run".split()
                ),
                positional="data",
            ),
            Command(
                "debate",
                "questions about evidence that the judge cannot read, argued by debaters who can",
                ("accord.config.debate:DebateOptions",),
                "accord.commands.debate:run",
                tuple("data judge debaters protocols rounds words count decoy debater_prompt to answers max_tokens dry_run seed".split()),
                positional="data",
            ),
        ),
    ),
    Group(
        "Look",
        (
            Command(
                "sample",
                "answers to prompts, with their log-probabilities",
                ("accord.config.options:ChatOptions",),
                "accord.commands.chat:sample",
                ("prompt", "num_samples", "max_new_tokens", "temperature", "seed", "force"),
                positional="model",
            ),
            Command(
                "evaluate",
                "accuracy on held-out comparisons or steps, or what the best of N answers gains",
                ("accord.config.options:EvaluateOptions",),
                "accord.commands.evaluate:run",
                (
                    "data",
                    "columns",
                    "force",
                    *_BEST_OF,
                    "aggregation",
                    "true",
                    "answer",
                    "max_new_tokens",
                    "temperature",
                    "seed",
                    "output_dir",
                ),
                positional="run",
            ),
            Command(
                "audit",
                "what training broke: flattery, refusals, loops, forgotten skills; what a reward model pays for",
                ("accord.config.audit:AuditOptions",),
                "accord.recipes.audit:run",
                tuple(
                    "model against reward judge gate sections limit max_new_tokens temperature seed output_dir prompts requests pairs".split()
                ),
                positional="model",
            ),
            Command(
                "lab",
                "over-optimisation where the true reward is known: the hump, and what removes it",
                ("accord.config.lab:LabOptions",),
                "accord.recipes.lab:run",
                ("level", "seeds", "arms", "output_dir"),
                positional="level",
            ),
        ),
    ),
    Group(
        "Use",
        (
            Command(
                "chat",
                "talk to a model or a run; --learn: in the browser, learning from what you prefer",
                ("accord.config.options:ChatOptions", "accord.config.options:LearnOptions"),
                "accord.commands.chat:chat",
                tuple("system max_new_tokens temperature seed force learn output_dir learning_rate beta steps pairs port".split()),
                positional="model",
            ),
            Command(
                "export",
                "take the model home: merged, adapter, GGUF or Ollama, each loaded again and compared",
                ("accord.config.export:ExportOptions",),
                "accord.commands.export:run",
                ("to", "output_dir", "prompts", "merged", "sequence_classification", "force"),
                positional="run",
            ),
            Command("data", "check, convert and start data files", (), "accord.commands.data:run", (), passthrough=True),
            Command(
                "annotate",
                "judge answers in the browser, your own or a model's",
                ("accord.config.options:AnnotateOptions",),
                "accord.commands.annotate:run",
                (
                    "data",
                    "model",
                    "answers",
                    "select",
                    "reward_model",
                    "talk",
                    "limit",
                    "round",
                    "overlap",
                    "max_new_tokens",
                    "temperature",
                    "columns",
                    "host",
                    "port",
                ),
                positional="project",
            ),
            Command(
                "ui",
                "runs live in the browser, curves and answers side by side; chat; checkpoints compared blind",
                ("accord.config.ui:UiOptions",),
                "accord.commands.ui:run",
                ("folder", "chat", "learn", "compare", "votes", "host", "port", "open_browser"),
                positional="folder",
            ),
            Command(
                "project",
                "collect labels: make a project, move tasks and labels, freeze them, back up",
                (),
                "accord.commands.project:run",
                (),
                passthrough=True,
            ),
        ),
    ),
)
COMMANDS = {command.name: command for group in GROUPS for command in group.commands}


def overview() -> str:
    """The map that `accord --help` prints."""
    lines = [f"accord {__version__}: bring a language model into accord with what people want.", "", "usage: accord COMMAND [options]", ""]
    for group in GROUPS:
        lines.append(group.title)
        lines += [f"  {command.name:<9} {command.summary}" for command in group.commands]
    return "\n".join(
        [
            *lines,
            "",
            "accord COMMAND --help shows its options, --help-all every one. Options may stand in a YAML file: --config recipe.yaml.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 2 usage, 3 data, 4 environment, 5 diverged, 6 an audit's gate is closed, 130 interrupted)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [item for item in given if item != "--debug"]
    try:
        code = _run(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output has enough of it: `accord ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes at its end
        return 0
    except AccordError as error:
        if debug:
            traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        full = no_room(error)
        if full is None or debug:
            raise
        print(f"MachineError: {full}", file=sys.stderr)
        return full.exit_code
    except KeyboardInterrupt as error:
        if type(error).__name__ == "Interrupted" and error.args:
            print(f"Stopped; saved in {error.args[0]}. Go on with: {resume_line(given, error.args[0])}", file=sys.stderr)
        return 130


def resume_line(given: Sequence[str], checkpoint: str) -> str:
    """The command that goes on, ready to paste: as it was given, from this checkpoint instead of any other."""
    if given[0] in ("demo", "align", "constitution"):  # find their own way
        return shlex.join(["accord", *given])
    kept: list[str] = []
    its_value_follows = False
    for item in given:
        name, equals, _ = item.replace("-", "_").partition("=")
        if name == "__resume_from_checkpoint":
            its_value_follows = not equals
        elif its_value_follows and not item.startswith("--"):
            its_value_follows = False
        else:
            its_value_follows = False
            kept.append(item)
    return shlex.join(["accord", *kept, "--resume_from_checkpoint", checkpoint])


def _run(given: list[str]) -> int:
    no_differences()
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if given[0] in ("-V", "--version"):
        print(f"accord {__version__}")
        return 0
    words = 2 if " ".join(given[:2]) in COMMANDS else 1  # accord prm trains, accord prm label labels
    name, rest = " ".join(given[:words]), given[words:]
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1)
        raise ConfigError(f"There is no command {name!r}." + (f" Did you mean {near[0]}?" if near else " accord --help lists them."))
    command = COMMANDS[name]
    if command.passthrough:
        return int(_load(command.handler)(rest) or 0)
    parsed = parse(command, rest)
    if parsed is None:
        return 0
    handler = _load(command.handler)
    result: Any = handler(*parsed) if parsed else handler()
    return result if isinstance(result, int) else 0


def _load(dotted: str) -> Any:
    module, _, attribute = dotted.partition(":")
    return getattr(importlib.import_module(module), attribute)


if __name__ == "__main__":
    sys.exit(main())
