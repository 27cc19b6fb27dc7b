"""One hand-written row of every layout, with what it means worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """A row (or the rows of one unit) and the examples it holds."""

    format: str
    rows: list[Row]
    prompts: list[str]
    """Text of the last prompt message of each example."""
    answers: list[list[str]]
    """Text of every message of every completion, of each example."""
    facts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Fields of each example: ranks, probability, strength, label, step_labels, step_probabilities."""
    exact: bool = True
    """True: writing gives the rows back exactly. False: the layout holds more than examples do (said in the docs)."""


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


def one(format: str, row: Row, prompt: str, answers: list[str], exact: bool = True, **facts: Any) -> Sample:
    return Sample(format, [row], [prompt], [answers], [facts], exact)


ARGILLA_FIELDS = {"prompt": "Hi?", "response_1": "Hello.", "response_2": "What?"}
LABEL_STUDIO_ITEMS = [{"id": "llm_1", "body": "One."}, {"id": "llm_2", "body": "Two."}, {"id": "llm_3", "body": "Three."}]


def label_studio(result: Row, data: Row, **annotation: Any) -> Row:
    entry = {"id": 9, "completed_by": 3, "was_cancelled": False, "ground_truth": False, "lead_time": 4.3, "result": [result], **annotation}
    return {"id": 1, "data": data, "annotations": [entry], "predictions": []}


PAIR = {"from_name": "comparison", "to_name": "answer1,answer2", "type": "pairwise"}
PAIR_DATA = {"prompt": "Hi?", "answer1": "Hello.", "answer2": "What?", "topic": "greeting"}

SAMPLES: list[Sample] = [
    one("text", {"text": "The sky is blue.", "lang": "en"}, "", ["The sky is blue."]),
    one("prompt", {"prompt": "The sky is", "id": 7}, "The sky is", []),
    one("prompt", {"prompt": [{"role": "system", "content": "Be brief."}, user("Color?")]}, "Color?", []),
    one("messages", {"messages": [user("Hi?"), assistant("Hello!"), user("Bye"), assistant("Ciao.")]}, "Hi?", ["Hello!", "Bye", "Ciao."]),
    one("messages", {"messages": [{"role": "developer", "content": "x"}, {**user("Hi?"), "name": "Ann"}, assistant("Yo.")], "tools": []}, "Hi?", ["Yo."]),
    one("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi?"}]}, assistant("Yo.")]}, "Hi?", ["Yo."]),
    one("prompt_completion", {"prompt": "The sky is", "completion": " blue.", "source": {"kind": "human"}}, "The sky is", [" blue."]),
    one("prompt_completion", {"prompt": "The sky is", "completion": " blu", "finished": False, "source": "web"}, "The sky is", [" blu"]),
    one("prompt_completion", {"prompt": [user("Color?")], "completion": [assistant("Blue.")]}, "Color?", ["Blue."]),
    one("labelled", {"prompt": "The sky is", "completion": " green.", "label": False}, "The sky is", [" green."], label=False),
    one("labelled", {"prompt": [user("Color?")], "completion": [assistant("Blue.")], "label": True}, "Color?", ["Blue."], label=True),
    one("preference", {"prompt": "The sky is", "chosen": " blue.", "rejected": " green.", "margin": 0.5}, "The sky is", [" blue.", " green."], strength=0.5),
    one(
        "preference",
        {
            "prompt": "The sky is", "chosen": " blue.", "rejected": " gree", "strength": 2, "probability": 0.9, "slice": "plain",
            "chosen_source": {"kind": "human"}, "rejected_source": {"kind": "sample", "seed": 3}, "chosen_finished": True, "rejected_finished": False,
        },
        "The sky is", [" blue.", " gree"], strength=2, probability=0.9,
    ),
    one("preference", {"prompt": [user("Color?")], "chosen": [assistant("Blue.")], "rejected": [assistant("Green.")]}, "Color?", ["Blue.", "Green."]),
    one("implicit_preference", {"chosen": "The sky is blue.", "rejected": "The sky is bleak."}, "The sky is", [" blue.", " bleak."]),
    one(
        "implicit_preference",
        {"chosen": [user("Color?"), assistant("Blue.")], "rejected": [user("Color?"), assistant("Black.")], "margin": 1},
        "Color?", ["Blue.", "Black."], strength=1,
    ),
    one(
        "ranking",
        {"prompt": "Sky?", "completions": ["Blue.", "Azure", "Red."], "ranks": [1, 1, 2], "finished": [True, False, True], "sources": [{"kind": "human"}, {}, {}]},
        "Sky?", ["Blue.", "Azure", "Red."], ranks=(1, 1, 2),
    ),
    one("ranking", {"prompt": [user("Sky?")], "completions": [[assistant("Red.")], [assistant("Blue.")]], "ranks": [2, 1]}, "Sky?", ["Red.", "Blue."], ranks=(2, 1)),
    one("stepwise", {"prompt": "9.8 or 9.11?", "completions": ["9.8 is 9.80.", "So 9.11."], "labels": [True, False]}, "9.8 or 9.11?", ["9.8 is 9.80.", "So 9.11."], step_labels=(1, -1)),
    one("steps", {"prompt": "2+2?", "completions": ["Hm.", "4.", "5."], "labels": [0, 1, None]}, "2+2?", ["Hm.", "4.", "5."], step_labels=(0, 1, None)),
    one("steps", {"prompt": "2+2?", "completions": ["Hm.", "4."], "labels": [1, -1], "step_probabilities": [0.25, None]}, "2+2?", ["Hm.", "4."], step_labels=(1, -1), step_probabilities=(0.25, None)),
    one("hh", {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: no"}, "hi", ["hello", "no"]),
    one(
        "hh",
        {"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c?\n\nAssistant: one two ", "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c?\n\nAssistant: one three"},
        "c?", ["one two ", "one three"],
    ),
    one("hh_scored", {"text": ["\n\nHuman: hi\n\nAssistant: no", "\n\nHuman: hi\n\nAssistant: hello"], "score": [0.0, 1.0]}, "hi", ["hello", "no"]),
    one(
        "ultrafeedback",
        {
            "source": "x", "instruction": "Hi?", "models": ["m1", "m2", "m3"], "correct_answers": [], "incorrect_answers": [],
            "completions": [
                {"model": "m1", "response": "Meh.", "annotations": {"honesty": {"Rating": "N/A", "Rationale": "r"}}, "overall_score": 7.5, "fine-grained_score": 2.0},
                {"model": "m2", "response": "Hello.", "annotations": {"honesty": {"Rating": "4", "Rationale": "r"}}, "overall_score": 4, "fine-grained_score": 4.25},
                {"model": "m3", "response": "Hey.", "annotations": {}, "overall_score": 4, "fine-grained_score": 2.0},
            ],
        },
        "Hi?", ["Meh.", "Hello.", "Hey."], ranks=(2, 1, 2),
    ),
    one(
        "ultrafeedback_binarized",
        {
            "prompt": "Hi?", "prompt_id": "ab", "chosen": [user("Hi?"), assistant("Hello.")], "rejected": [user("Hi?"), assistant("What?")],
            "messages": [user("Hi?"), assistant("Hello.")], "score_chosen": 8.0, "score_rejected": 4.0,
        },
        "Hi?", ["Hello.", "What?"],
    ),
    one(
        "sharegpt",
        {"id": "x", "conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi?"}, {"from": "chatgpt", "value": "Yo."}]},
        "Hi?", ["Yo."],
    ),
    one("sharegpt", {"system": "Be kind.", "conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yo."}]}, "Hi?", ["Yo."]),
    one(
        "sharegpt_preference",
        {"conversations": [{"from": "human", "value": "Hi?"}], "chosen": {"from": "gpt", "value": "Hello."}, "rejected": {"from": "gpt", "value": "What?"}},
        "Hi?", ["Hello.", "What?"],
    ),
    one("alpaca", {"instruction": "Add.", "input": "2 and 3", "output": "5"}, "Add.\n\n2 and 3", ["5"]),
    one("alpaca", {"instruction": "Name a color.", "input": "", "output": "Red.", "system": "", "history": []}, "Name a color.", ["Red."]),
    one("alpaca", {"instruction": "More?", "input": "", "output": "No.", "system": "Be brief.", "history": [["Hi", "Yo"]]}, "More?", ["No."]),
    one(
        "labelled", {"system": "Be kind.", "prompt": "Hi?", "completion": "Yo.", "label": True}, "Hi?", ["Yo."], exact=False, label=True
    ),
    one("preference", {"prompt": [user("Hi?")], "chosen": [assistant("Yo.")], "rejected": [assistant("No.")], "system": "Be kind."}, "Hi?", ["Yo.", "No."], exact=False),
    one("safe_rlhf", {"prompt": "Hi?", "response_0": "No.", "response_1": "Yo.", "better_response_id": 1, "safer_response_id": 0}, "Hi?", ["Yo.", "No."]),
    one("alpaca_preference", {"instruction": "Add.", "input": "2 and 3", "chosen": "5", "rejected": "6"}, "Add.\n\n2 and 3", ["5", "6"]),
    one("dolly", {"instruction": "Who?", "context": "Ann came.", "response": "Ann.", "category": "closed_qa"}, "Who?\n\nAnn came.", ["Ann."]),
    one(
        "openai_preference",
        {
            "input": {"messages": [user("Hi?")], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [assistant("Hello!")], "non_preferred_output": [assistant("What?")],
        },
        "Hi?", ["Hello!", "What?"],
    ),
    one(
        "openai_preference",
        {
            "input": {"messages": [user("Hi?")], "tools": [{"type": "function", "function": {"name": "wave"}}], "parallel_tool_calls": True},
            "preferred_output": [assistant("Hello!")], "non_preferred_output": [assistant("What?")],
        },
        "Hi?", ["Hello!", "What?"],
    ),
    one(
        "openai_preference",
        {
            "input": {"messages": [user("Hi?")], "functions": [{"name": "wave", "parameters": {}}]},
            "preferred_output": [assistant("Hello!")], "non_preferred_output": [assistant("What?")],
        },
        "Hi?", ["Hello!", "What?"],
    ),
    one("messages", {"messages": [user("Hi?"), assistant("Yo.")], "functions": [{"name": "wave"}]}, "Hi?", ["Yo."]),
    Sample(
        "argilla",
        [{
            "id": "r1", "fields": ARGILLA_FIELDS, "metadata": {}, "status": "completed",
            "suggestions": {"ranking": {"value": ["response_1", "response_2"], "score": 0.5, "agent": "judge"}},
            "responses": {"ranking": [{"user_id": "u1", "value": ["response_2", "response_1"]}, {"user_id": "u2", "value": ["response_1", "response_2"]}]},
        }],
        ["Hi?", "Hi?"], [["What?", "Hello."], ["Hello.", "What?"]], [{"ranks": (1, 2)}, {"ranks": (1, 2)}],
    ),
    one(
        "argilla",
        {"id": "r2", "fields": ARGILLA_FIELDS, "status": "completed",
         "responses": {"ranking": [{"user_id": "u", "value": [{"value": "response_2", "rank": 1}, {"value": "response_1", "rank": 1}]}]}},
        "Hi?", ["What?", "Hello."], ranks=(1, 1),
    ),
    one(
        "argilla_flat",
        {
            "id": "r3", "status": "completed", **ARGILLA_FIELDS, "ranking.responses": [["response_2", "response_1"]], "ranking.responses.users": ["u1"],
            "ranking.responses.status": ["submitted"], "ranking.suggestion": ["response_1", "response_2"],
        },
        "Hi?", ["What?", "Hello."], ranks=(1, 2),
    ),
    one("label_studio", label_studio({**PAIR, "value": {"selected": "right"}}, PAIR_DATA), "Hi?", ["What?", "Hello."]),
    one("label_studio", label_studio({**PAIR, "to_name": "t1,t2", "value": {"selected": "left"}}, {"prompt": "Hi?", "a": "Hello.", "b": "What?"}), "Hi?", ["Hello.", "What?"]),
    one(
        "label_studio_ranker",
        label_studio({"type": "ranker", "value": {"ranker": {"_": ["llm_2", "llm_1"], "relevant_results": [], "biased_results": ["llm_3"]}}}, {"prompt": "Hi?", "items": LABEL_STUDIO_ITEMS}),
        "Hi?", ["Two.", "One.", "Three."], ranks=(1, 1, 2),
    ),
    one(
        "label_studio_ranker",
        label_studio({"type": "ranker", "value": {"ranker": {"_": ["llm_3", "llm_1", "llm_2"]}}}, {"prompt": "Hi?", "items": LABEL_STUDIO_ITEMS}),
        "Hi?", ["Three.", "One.", "Two."], ranks=(1, 2, 3),
    ),
    one("potato", {"id": "1", "prompt": "Hi?", "responses": ["Hello.", "What?"], "preference": {"selection": "B"}}, "Hi?", ["What?", "Hello."]),
    one("potato", {"prompt": "Hi?", "responses": ["Hello.", "What?"], "preference": {"selection": "tie"}}, "Hi?", ["Hello.", "What?"], probability=0.5),
    one("potato", {"prompt": "Hi?", "responses": ["Hello.", "What?"], "preference_scale": {"scale_value": "-2"}}, "Hi?", ["Hello.", "What?"], strength=2),
    one(
        "openai_comparisons",
        {
            "info": {"id": "t3_1", "post": "A long day.", "title": "My day", "subreddit": "stories"}, "split": "train", "batch": "b0", "worker": "w", "choice": 1,
            "summaries": [{"text": " Long.", "policy": "sup1", "note": "ok"}, {"text": " A day.", "policy": "ref", "note": ""}], "extra": {"confidence": 7},
        },
        "SUBREDDIT: r/stories\n\nTITLE: My day\n\nPOST: A long day.\n\nTL;DR:", [" A day.", " Long."],
    ),
    one(
        "openai_comparisons",
        {"info": {"id": "c1", "article": "News."}, "summaries": [{"text": "New."}, {"text": "Old."}], "choice": 0},
        "News.", ["New.", "Old."],
    ),
    one(
        "potato_steps",
        {"instance_id": "t", "annotator": "ann", "mode": "per_step", "prompt": "2+2?", "steps": [{"index": 0, "reward": 1, "text": "4."}, {"index": 1, "reward": None, "text": "Done."}]},
        "2+2?", ["4.", "Done."], step_labels=(1, None),
    ),
    one(
        "arena",
        {
            "question_id": "q", "model_a": "m1", "model_b": "m2", "winner": "model_b", "judge": "j", "turn": 1, "anony": True, "language": "English",
            "tstamp": 1.5, "conversation_a": [user("Hi?"), assistant("Hello.")], "conversation_b": [user("Hi?"), assistant("What?")],
        },
        "Hi?", ["What?", "Hello."],
    ),
    one(
        "arena",
        {"winner": "tie (bothbad)", "conversation_a": [user("Hi?"), assistant("Hello.")], "conversation_b": [user("Hi?"), assistant("What?")]},
        "Hi?", ["Hello.", "What?"], probability=0.5,
    ),
    Sample(
        "prm800k",
        [{
            "labeler": "l", "timestamp": "t", "generation": None, "is_quality_control_question": False, "is_initial_screening_question": False,
            "question": {"problem": "1+1+1?", "ground_truth_answer": "3"},
            "label": {
                "steps": [
                    {"completions": [{"text": "1+1=3", "rating": -1, "flagged": False}, {"text": "1+1=2", "rating": 1, "flagged": None}], "human_completion": None, "chosen_completion": 1},
                    {"completions": [{"text": "2+1=4", "rating": -1, "flagged": False}], "human_completion": {"text": "2+1=3"}, "chosen_completion": None},
                    {"completions": [{"text": "So 3.", "rating": 0, "flagged": False}], "human_completion": None, "chosen_completion": 0},
                ],
                "total_time": 9, "finish_reason": "solution",
            },
        }],
        ["1+1+1?"] * 3,
        [["1+1=3"], ["1+1=2", "2+1=4"], ["1+1=2", "2+1=3", "So 3."]],
        [{"step_labels": (-1,)}, {"step_labels": (1, -1)}, {"step_labels": (1, 1, 0)}],
    ),
    one(
        "math_shepherd",
        {"input": "What is 2+2? Step 1: 2+2=4 ки\nStep 2: So 5. ки", "label": "What is 2+2? Step 1: 2+2=4 +\nStep 2: So 5. -", "task": "GSM8K"},
        "What is 2+2?", ["Step 1: 2+2=4", "Step 2: So 5."], step_labels=(1, -1),
    ),
    Sample(
        "prmbench",
        [{"original_question": "2+2?", "modified_question": "2+2?", "original_process": ["2+2=4", "4."], "modified_process": ["2+2=5", "5."], "error_steps": [1], "idx": "p0"}],
        ["2+2?", "2+2?"], [["2+2=4", "4."], ["2+2=5", "5."]], [{"step_labels": (1, 1)}, {"step_labels": (-1, 1)}],
    ),
    one(
        "processbench",
        {"id": "g", "generator": "m", "problem": "2+2?", "steps": ["2+2=4", "4+1=6", "6."], "final_answer_correct": False, "label": 1},
        "2+2?", ["2+2=4", "4+1=6", "6."], step_labels=(1, -1, None),
    ),
    one("processbench", {"problem": "2+2?", "steps": ["4."], "final_answer_correct": True, "label": -1}, "2+2?", ["4."], step_labels=(1,)),
    one("bigbench_mistake", {"input": "2+2?", "steps": ["4.", "4."], "mistake_index": None, "answer": "4"}, "2+2?", ["4.", "4."], step_labels=(1, 1)),
    one(
        "helpsteer2",
        {"split": "train", "prompt": "Hi\n<extra_id_1>Assistant\nYo\n<extra_id_1>User\nMore?", "response_1": "No.", "response_2": "Yes.", "preference_strength": 2},
        "More?", ["Yes.", "No."], strength=2,
    ),
    one("helpsteer2", {"prompt": "More?", "response_1": "No.", "response_2": "Yes.", "preference_strength": 0}, "More?", ["No.", "Yes."], probability=0.5),
    one(
        "helpsteer3",
        {"domain": "general", "language": "english", "context": [user("More?")], "response1": "Yes.", "response2": "No.", "overall_preference": -3},
        "More?", ["Yes.", "No."], strength=3,
    ),
    Sample(
        "helpsteer_ratings",
        [
            {"prompt": "More?", "response": "No.", "helpfulness": 1, "correctness": 4, "coherence": 4, "complexity": 0, "verbosity": 0},
            {"prompt": "More?", "response": "Yes.", "helpfulness": 4, "correctness": 4, "coherence": 4, "complexity": 0, "verbosity": 0},
        ],
        ["More?"], [["No.", "Yes."]], [{"ranks": (2, 1)}],
    ),
    one("shp", {"post_id": "p", "history": "Why?", "human_ref_A": "Dunno.", "human_ref_B": "Because.", "labels": 0, "score_A": 2, "score_B": 9}, "Why?", ["Because.", "Dunno."]),
    one("pandalm", {"idx": 1, "instruction": "Add.", "input": "2, 3", "response1": "6", "response2": "5", "annotator1": 2, "annotator2": 2, "annotator3": 0}, "Add.\n\n2, 3", ["5", "6"], probability=2.5 / 3),
    one("llmbar", {"input": "Add 2 and 3.", "output_1": "6", "output_2": "5", "label": 2}, "Add 2 and 3.", ["5", "6"]),
    one("winner", {"prompt": "Hi?", "answer_a": "Yo.", "answer_b": "Hm.", "winner": "B"}, "Hi?", ["Hm.", "Yo."]),
    one(
        "nectar",
        {"prompt": "\n\nHuman: Hi?\n\nAssistant: ", "answers": [{"answer": "Yo.", "model": "m1", "rank": 2.0}, {"answer": "Hello.", "model": "m2", "rank": 1.0}], "turns": 1, "num_responses": 2, "source": ["x"], "good_natured": True},
        "Hi?", ["Yo.", "Hello."], ranks=(2, 1),
    ),
    Sample(
        "oasst_trees",
        [{
            "message_tree_id": "t1", "tree_state": "ready_for_export",
            "prompt": {"message_id": "t1", "text": "Hi?", "role": "prompter", "replies": [
                {"message_id": "a", "text": "Yo.", "role": "assistant", "rank": 1, "replies": []},
                {"message_id": "b", "text": "Hello.", "role": "assistant", "rank": 0, "replies": [
                    {"message_id": "c", "text": "More?", "role": "prompter", "replies": [
                        {"message_id": "d", "text": "Yes.", "role": "assistant", "rank": 0, "synthetic": True, "replies": []},
                        {"message_id": "e", "text": "No.", "role": "assistant", "rank": 1, "replies": []},
                        {"message_id": "f", "text": "Unranked.", "role": "assistant", "replies": []},
                    ]},
                ]},
            ]},
        }],
        ["Hi?", "More?"], [["Yo.", "Hello."], ["Yes.", "No."]], [{"ranks": (2, 1)}, {"ranks": (1, 2)}], exact=False,
    ),
]  # fmt: skip
