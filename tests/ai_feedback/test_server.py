"""A server that serves a real model, is busy, slow, rude, or killed: the same verdicts, nothing lost, nothing paid for twice."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fastapi import Response

from accord.ai_feedback.asking import OUT_OF_BUDGET, Question, ask
from accord.ai_feedback.judge_prompts import load_prompt
from accord.ai_feedback.judges import PairwiseJudge
from accord.ai_feedback.local import LocalModel
from accord.ai_feedback.patience import Pace, retry_after
from accord.ai_feedback.reading import read
from accord.ai_feedback.server import ServedModel, ServerSettings
from accord.ai_feedback.store import AnswerStore
from accord.errors import ConfigError, MachineError
from accord.models.opened import Opened
from accord.types import Message
from ai_feedback.scripted import comparison
from ai_feedback.serving import JudgeServer, completion, failing, says

pytest.importorskip("openai")
FAST = ServerSettings(attempts=4, timeout=20.0)


def questions(count: int) -> list[Question]:
    return [Question((Message("user", f"Question {number}"),), {"A": ("A",), "B": ("B",)}) for number in range(count)]


def served(server: JudgeServer, settings: ServerSettings = FAST) -> ServedModel:
    return ServedModel(server.url, "served", settings)


def texts(server: JudgeServer, count: int, store: AnswerStore | None = None, settings: ServerSettings = FAST) -> list[str | None]:
    found = ask(served(server, settings), questions(count), AnswerStore() if store is None else store)
    return [answer.error or answer.text for answer in found]


# -- the same judge in this process and behind a server ------------------------------------------------------------------------------


STORY = """
kind: pairwise
messages:
  - role: user
    content: "Once upon a time there was {conversation}. {first} was happy. {second} was sad. Then"
options:
  A: ["A", "T"]
  B: ["B", "S"]
"""


def test_the_same_verdicts_in_process_and_served(stories: Opened, stories_server: JudgeServer, tmp_path: Path) -> None:
    """Log-probabilities of the stories model, read by packing here and by its own forward pass behind HTTP there."""
    (tmp_path / "story.yaml").write_text(STORY, encoding="utf-8")
    prompt = load_prompt(str(tmp_path / "story.yaml"))
    rows = [comparison(*pair, prompt=what) for what in ("a big dog", "a little girl") for pair in (("Tom", "Lily"), ("The cat", "Mom"))]
    here = PairwiseJudge(LocalModel(stories, "stories"), prompt).compare(rows)
    there = PairwiseJudge(served(stories_server), prompt).compare(rows)
    for one, other in zip(here, there, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-5) and one.choice == other.choice
        for reading, again in zip(one.readings, other.readings, strict=True):
            assert (reading.value, reading.mass) == pytest.approx((again.value, again.mass), abs=1e-5)
            assert reading.prompt_tokens == again.prompt_tokens and reading.prompt_hash == again.prompt_hash
    assert len({one.probability for one in here}) == len(rows)  # and they are no constant


def test_the_same_text_and_the_same_probabilities_behind_it(stories: Opened, stories_server: JudgeServer) -> None:
    """What the model writes ends in a verdict, whose alternatives are read where it stands."""
    told = "Once upon a time there was a big dog. Tom was happy. Lily was sad. Then"
    asked = Question((Message("user", told),), {"T": ("T",), "W": ("W",)}, 48, 'said, "{option}')
    (here,) = ask(LocalModel(stories, "stories"), [asked], AnswerStore())
    (there,) = ask(served(stories_server), [asked], AnswerStore())
    assert here.text == there.text and here.text.endswith('The bird was very happy and said, "T')
    (found, status, mass), (again, _, too) = read(asked, here), read(asked, there)
    assert found is not None and status == "ok" and found == pytest.approx(again, abs=1e-5) and mass == pytest.approx(too, abs=1e-5)
    assert found["T"] > found["W"] > 0.01


def test_too_few_likely_tokens_are_a_reason(stories_server: JudgeServer) -> None:
    options = {"A": (" he",), "B": ("Z",)}
    asked = Question((Message("user", "Once upon a time"),), options)
    (answer,) = ask(served(stories_server, ServerSettings(top_logprobs=5)), [asked], AnswerStore())
    assert answer.top is not None and len(answer.top[0][1]) == 5 and read(asked, answer)[0] is None


# -- trouble --------------------------------------------------------------------------------------------------------------------------


def test_many_questions_are_on_their_way_and_no_more_than_said(server: JudgeServer) -> None:
    def slowly(body: dict[str, object]) -> dict[str, object]:
        time.sleep(0.05)
        return completion("A")

    server.replies = slowly
    assert texts(server, 24, settings=ServerSettings(concurrency=5)) == ["A"] * 24
    assert 3 <= server.most_at_once <= 5


def test_a_busy_server_is_waited_for_by_everybody(server: JudgeServer) -> None:
    """429 with Retry-After: nobody asks again before, and nothing is lost."""
    begun = time.monotonic()
    server.trouble = lambda number: failing(429, "slow down", **{"retry-after": "1"}) if number == 0 else None
    assert texts(server, 3, settings=ServerSettings(concurrency=1)) == ["A"] * 3
    assert time.monotonic() - begun >= 1.0 and len(server.requests) == 4 and set(server.answered.values()) == {1}


def test_being_asked_to_wait_is_no_failure(server: JudgeServer) -> None:
    """Eight times in a row, with two tries to fail."""
    server.trouble = lambda number: failing(429, "slow down", **{"retry-after-ms": "20"}) if number < 8 else None
    assert texts(server, 1, settings=ServerSettings(attempts=2)) == ["A"] and len(server.requests) == 9


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failures_that_pass_are_tried_again(server: JudgeServer, status: int) -> None:
    server.trouble = lambda number: failing(status) if number in (0, 2) else None
    assert texts(server, 2, settings=ServerSettings(concurrency=1)) == ["A", "A"]
    assert len(server.requests) == 4


def test_a_slow_answer_is_asked_for_again(server: JudgeServer) -> None:
    def slow(number: int) -> Response | None:
        if number == 0:
            time.sleep(1.5)
        return None

    server.trouble = slow
    assert texts(server, 1, settings=ServerSettings(timeout=0.5)) == ["A"] and len(server.requests) == 2


@pytest.mark.parametrize(
    "body", ["<html>Gateway</html>", "", "[]", "3", '"A"', '{"choices": []}', '{"choices": [{"message": {"content": 7}}]}', "{", "null"]
)
def test_rubbish_is_asked_again_and_then_a_reason(server: JudgeServer, body: str) -> None:
    """Never kept and never taken for a verdict; a good answer to the second try is one."""
    store = AnswerStore()
    server.trouble = lambda number: Response(body, media_type="application/json") if number == 0 else None
    assert texts(server, 1, store, ServerSettings(attempts=2)) == ["A"]
    server.trouble = lambda number: Response(body, media_type="text/html")
    found = ask(served(server, ServerSettings(attempts=1)), questions(2), store)
    assert found[0].text == "A" and (found[1].error or "").startswith("the server's answer could not be read")
    assert store.counts() == (1, 1)


def test_a_server_that_stays_away_stops_the_run_and_nothing_is_lost(server: JudgeServer) -> None:
    """It is killed in the middle and comes back: what was answered is not asked again."""
    store = AnswerStore()

    def dies(number: int) -> Response | None:
        if number == 5:
            server._server.force_exit = server._server.should_exit = True
            time.sleep(0.3)
        return None

    server.trouble = dies
    with pytest.raises(MachineError, match="did not answer in 2 tries .*Answers so far are kept"):
        texts(server, 12, store, ServerSettings(concurrency=1, attempts=2))
    answered = store.counts()[0]
    assert answered == 5 and store.counts()[1] == 7
    server.stop()
    server.trouble = lambda number: None
    server.start()
    assert texts(server, 12, store) == ["A"] * 12 and store.counts() == (12, 0)
    assert sum(server.answered.values()) <= 13  # the one that was on its way when it died may have been answered twice


def test_answers_on_their_way_are_kept_when_another_fails_for_good(server: JudgeServer) -> None:
    def trouble(number: int) -> Response | None:
        if number == 1:
            return failing(401, "bad key")
        time.sleep(0.3)
        return None

    store = AnswerStore()
    server.trouble = trouble
    with pytest.raises(ConfigError, match=r"refuses the key \(status 401\)\. It is read from ACCORD_API_KEY, which is not set"):
        texts(server, 8, store, ServerSettings(concurrency=3))
    assert store.counts()[0] == sum(server.answered.values()) == 2


def test_a_refused_question_is_a_reason_and_the_others_go_on(server: JudgeServer) -> None:
    server.trouble = lambda number: failing(400, "context length exceeded") if number == 1 else None
    first, second, third = texts(server, 3, settings=ServerSettings(concurrency=1))
    assert first == third == "A" and "the server refuses the question" in (second or "") and "context length" in (second or "")


def test_servers_that_want_another_name_for_the_limit(server: JudgeServer) -> None:
    server.trouble = lambda number: failing(400, "use max_completion_tokens instead") if number == 0 else None
    assert texts(server, 2, settings=ServerSettings(concurrency=1)) == ["A", "A"]
    assert [sorted({"max_tokens", "max_completion_tokens"} & set(body)) for body in server.requests] == [
        ["max_tokens"],
        ["max_completion_tokens"],
        ["max_completion_tokens"],
    ]


def test_a_server_that_gives_no_probabilities(server: JudgeServer) -> None:
    server.trouble = lambda number: failing(400, "logprobs are not supported")
    with pytest.raises(ConfigError, match="--top_logprobs 0"):
        texts(server, 1)
    server.trouble = lambda number: None
    assert texts(server, 1, settings=ServerSettings(top_logprobs=0)) == ["A"] and "logprobs" not in server.requests[-1]


def test_requests_keep_a_pace(server: JudgeServer) -> None:
    begun = time.monotonic()
    texts(server, 6, settings=ServerSettings(requests_per_minute=600))
    assert time.monotonic() - begun >= 0.5


def test_a_server_that_asks_for_an_hour(server: JudgeServer) -> None:
    server.trouble = lambda number: failing(429, **{"retry-after": "3600"})
    with pytest.raises(MachineError, match="asks to wait 60 minutes in all"):
        texts(server, 1)


# -- budgets --------------------------------------------------------------------------------------------------------------------------


def test_a_budget_in_tokens_is_never_exceeded_and_goes_on_when_raised(server: JudgeServer) -> None:
    server.replies = lambda body: completion("A", tokens=(20, 2))
    store = AnswerStore()
    found = texts(server, 30, store, ServerSettings(max_tokens=300, concurrency=4))
    answered = sum(one == "A" for one in found)
    assert 0 < answered < 30 and store.spent().tokens == 22 * answered <= 300
    assert found.count(OUT_OF_BUDGET) == 30 - answered
    again = texts(server, 30, store, ServerSettings(max_tokens=300))
    assert again == found and sum(server.answered.values()) == answered  # what is spent stays spent
    assert texts(server, 30, store, ServerSettings(max_tokens=3000)) == ["A"] * 30 and set(server.answered.values()) == {1}


def test_a_budget_in_money(server: JudgeServer) -> None:
    """20 tokens in at 1 a thousand and 2 out at 10 a thousand: 0.04 an answer."""
    server.replies = lambda body: completion("A", tokens=(20, 2))
    store = AnswerStore()
    settings = ServerSettings(max_cost=1.0, price_in=1000.0, price_out=10000.0)
    found = texts(server, 60, store, settings)
    answered = sum(one == "A" for one in found)
    assert 0 < answered < 60 and store.spent().cost == pytest.approx(0.04 * answered) and store.spent().cost <= 1.0
    with pytest.raises(ConfigError, match="--max_cost needs prices"):
        ServerSettings(max_cost=1.0)


# -- keys and addresses ---------------------------------------------------------------------------------------------------------------


def test_the_key_goes_to_the_server_and_nowhere_else(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-you")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-not-for-you")
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "answers.sqlite"
    with AnswerStore(path) as store:
        texts(server, 2, store, ServerSettings(api_key_env="MY_KEY"))
        server.trouble = lambda number: failing(404, "no model for sk-very-secret here")
        with pytest.raises(ConfigError) as error:
            texts(server, 3, store, ServerSettings(api_key_env="MY_KEY"))
    assert server.headers[0]["authorization"] == "Bearer sk-very-secret" and "sk-very-secret" not in str(error.value)
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"sk-very-secret" not in written and "sk-very-secret" not in caplog.text
    sent = json.dumps(server.headers) + json.dumps(server.requests)
    assert "not-for-you" not in sent


def test_addresses(server: JudgeServer) -> None:
    assert ServedModel(server.url).model == "served"
    for wrong, words in (("http://user:pass@host/v1", "user or password"), ("ftp://host", "no address"), ("http://", "no address")):
        with pytest.raises(ConfigError, match=words):
            ServedModel(wrong, "m")


def test_several_models_want_a_name(server: JudgeServer) -> None:
    server.stop()
    with pytest.raises(MachineError, match="name a model"):
        ServedModel(server.url, None, ServerSettings(attempts=1))
    server.start()


# -- killed ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif("sys.platform == 'win32'", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_and_pays_once(server: JudgeServer, tmp_path: Path) -> None:
    """accord judge is killed for good in the middle and run again: every answer that had reached it was asked for once."""
    rows = [{"prompt": f"Question {i}", "chosen": f"Good {i}", "rejected": f"Bad {i}"} for i in range(30)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "accord", "judge", "pairs.jsonl", "--judge", f"{server.url}#served", "--concurrency", "2"]

    def slowly(body: dict[str, object]) -> dict[str, object]:
        time.sleep(0.05)
        return says("A")(body)

    server.replies = slowly
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 60
    while sum(server.answered.values()) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 20 <= sum(server.answered.values()) < 60 and not (tmp_path / "pairs-judged.jsonl").exists()
    kept = sqlite3.connect(tmp_path / "pairs-judged.answers.sqlite").execute("SELECT count(answer) FROM answers").fetchone()[0]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"has {kept} answers, which are not asked again" in done.stderr
    assert len(server.answered) == 60 and sum(server.answered.values()) <= 60 + 2 + 1  # two were on their way, one perhaps just arriving
    assert len((tmp_path / "pairs-judged.jsonl").read_text(encoding="utf-8").splitlines()) == 30


# -- patience -------------------------------------------------------------------------------------------------------------------------


def test_retry_after_in_all_its_forms() -> None:
    assert retry_after({"retry-after": "2"}) == 2.0 and retry_after({"retry-after-ms": "250"}) == 0.25
    assert retry_after({}) is None and retry_after({"retry-after": "soon"}) is None
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 25 < (retry_after({"retry-after": later}) or 0) <= 30


def test_a_pause_holds_everybody() -> None:
    pace = Pace()
    pace.pause(0.2, everybody=True)
    begun = time.monotonic()
    pace.wait()
    assert time.monotonic() - begun >= 0.19


def test_openai_is_an_extra_with_its_line() -> None:
    script = "import sys; sys.modules['openai'] = None\nfrom accord.ai_feedback.server import ServedModel\nServedModel('http://127.0.0.1:1/v1', 'm')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip install 'accord[judges]'" in done.stderr
