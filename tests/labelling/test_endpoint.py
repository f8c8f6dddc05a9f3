"""`metakd label --endpoint` against a server on this machine that answers as such APIs do, and as they fail."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from conftest import BAD, Command, as_row, passed, read_rows, refused, toy_examples, write_rows
from metakd.labelling.endpoint import Endpoint
from metakd.labelling.replies import is_unfinished_thought, named_label, token_probabilities
from metakd.utils.signals import Stopped, graceful_shutdown, request_stop, signals_handled

Reply = Callable[["Server", dict[str, Any]], tuple[int, Any]]
KEY = "sk-secret-of-the-tests"


class Server:
    """An OpenAI-compatible API that knows the toy texts; `reply` may be replaced."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.reply: Reply = with_probabilities
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(body)
                server.keys.append(self.headers.get("Authorization"))
                code, content = server.reply(server, body)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def sentiment(body: dict[str, Any]) -> str:
    return "negative" if {*BAD} & {*body["messages"][0]["content"].split()} else "positive"


def answer(text: str, logprobs: dict[str, float] | None = None) -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in (logprobs or {}).items()]
    content = [{**top[0], "top_logprobs": top}] if top else None
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    choice["logprobs"] = {"content": content, "refusal": None} if content else None
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def with_probabilities(_: Server, body: dict[str, Any]) -> tuple[int, Any]:
    """The likelier label begins the answer with probability 0.8; some of it with a blank or a capital."""
    label = sentiment(body)
    other = "pos" if label == "negative" else "neg"
    return 200, answer(label, {label[:3]: 0.5, f" {label[:3].title()}": 0.3, other: 0.1, "The": 0.1})


def without_probabilities(server: Server, body: dict[str, Any]) -> tuple[int, Any]:
    """A server that knows no logprobs; the third answer to a prompt is wrong."""
    if "logprobs" in body:
        return 400, {"error": {"message": "logprobs are not supported", "type": "invalid_request_error"}}
    earlier = [each for each in server.asked if each["messages"] == body["messages"] and "logprobs" not in each]
    label = sentiment(body)
    other = "negative" if label == "positive" else "positive"
    return 200, answer(f"**{other if len(earlier) == 3 else label}**.")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    serving = Server()
    yield serving
    serving.http.shutdown()


@pytest.fixture
def label(metakd: Command, server: Server, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """label(...) -> what the command ended with, on 20 toy texts."""
    texts = write_rows(tmp_path / "texts.jsonl", [as_row(e) for e in toy_examples(20, 0, "t")])
    usual = ("--data", texts, "--output", tmp_path / "out.jsonl", "--model", "m", "--overwrite")
    return lambda *flags, url=server.url: metakd("label", *usual, "--endpoint", url, *flags)


def test_probabilities_of_the_first_token_become_those_of_labels(
    label: Callable[..., Any], server: Server, tmp_path: Path
) -> None:
    """0.8 and 0.1, of which 0.9 is the whole; the key is sent, and written nowhere."""
    out, _ = passed(label("--no-correct-prior"))
    assert "20 texts, of which 20 have a label: 100.0% right" in out
    for row in read_rows(tmp_path / "out.jsonl"):
        assert row["probabilities"][row["label"]] == pytest.approx(8 / 9, abs=1e-5)
    assert server.keys == [f"Bearer {KEY}"] * len(server.asked)
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    prompt = server.asked[0]["messages"][0]["content"]
    assert "Which label fits the text below: negative, positive?" in prompt


def test_votes_count_where_there_are_no_probabilities(
    label: Callable[..., Any], server: Server, tmp_path: Path
) -> None:
    """Of three answers two are right; that the API knows no logprobs is asked once for each of 8 calls at a time."""
    server.reply = without_probabilities
    passed(label("--no-correct-prior", "--votes", 3))
    texts = len({row["text"] for row in read_rows(tmp_path / "out.jsonl")})
    assert len([body for body in server.asked if "logprobs" in body]) <= 8
    assert len([body for body in server.asked if "logprobs" not in body]) == 3 * texts
    for row in read_rows(tmp_path / "out.jsonl"):
        assert row["probabilities"][row["label"]] == pytest.approx(2 / 3, abs=1e-4)


def test_a_label_that_begins_as_another_is_voted_for(label: Callable[..., Any], server: Server, tmp_path: Path) -> None:
    server.reply = lambda _, body: (200, answer(f"very {sentiment(body)}", {"very": 0.9, "x": 0.1}))
    (tmp_path / "words.yaml").write_text("positive: very positive\nnegative: very negative\n")
    out, _ = passed(label("--label-words", tmp_path / "words.yaml"))
    assert "100.0% right" in out


def test_errors_that_pass_are_asked_again(label: Callable[..., Any], server: Server) -> None:
    """Each text is answered when it is asked for the second time."""

    def later(serving: Server, body: dict[str, Any]) -> tuple[int, Any]:
        if [asked["messages"] for asked in serving.asked].count(body["messages"]) > 1:
            return with_probabilities(serving, body)
        return 429 if len(serving.asked) % 2 else 500, {"error": {"message": "x"}}

    server.reply = later
    out, _ = passed(label())
    assert "20 texts" in out


def test_a_budget_ends_the_work_and_the_same_command_goes_on(
    label: Callable[..., Any], server: Server, tmp_path: Path
) -> None:
    said = refused(label("--max-calls", 9))
    assert "all 9 calls of --max-calls are made; what was answered is kept; the same command goes on from there" in said
    assert not (tmp_path / "out.jsonl").exists()
    assert len(server.asked) == len(read_rows(tmp_path / "out.answers")) == 9
    passed(label("--max-calls", 20))
    contents = [body["messages"][0]["content"] for body in server.asked]
    assert len(contents) == len({*contents})


def test_calls_keep_their_pace(label: Callable[..., Any], server: Server) -> None:
    started = time.monotonic()
    passed(label("--calls-per-minute", 600))
    assert time.monotonic() - started >= 0.1 * (len(server.asked) - 1)


def test_texts_whose_answer_names_no_label_are_left_out(
    label: Callable[..., Any], server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.reply = lambda _, body: (
        200,
        answer("unclear" if "was" in body["messages"][0]["content"] else sentiment(body)),
    )
    passed(label())
    rows = read_rows(tmp_path / "out.jsonl")
    assert 0 < len(rows) < 20
    assert f"{20 - len(rows)} texts are left out: no answer named a label" in caplog.text


def test_many_texts_without_a_label_do_not_end_the_work_and_are_not_paid_for_again(
    metakd: Command, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metakd.labelling.endpoint.TRIED", 5)
    rows = [{"text": f"{'unsure' if i % 2 else 'good'} {i}"} for i in range(40)]
    texts = write_rows(tmp_path / "texts.jsonl", rows)
    flags = ("--data", texts, "--output", tmp_path / "out.jsonl", "--labels", "negative,positive", "--model", "m")
    flags += ("--endpoint", server.url, "--overwrite")
    server.reply = lambda _, body: (200, answer("??" if "unsure" in body["messages"][0]["content"] else "positive"))
    passed(metakd("label", *flags))
    assert len(read_rows(tmp_path / "out.jsonl")) == 20
    passed(metakd("label", *flags))
    assert len(server.asked) == 40


@pytest.mark.parametrize("refused_option", ["max_tokens", "temperature", "top_logprobs"])
def test_options_that_a_model_refuses_are_left_out(
    label: Callable[..., Any], server: Server, refused_option: str
) -> None:
    """As models that think before they answer refuse some."""

    def choosy(serving: Server, body: dict[str, Any]) -> tuple[int, Any]:
        if refused_option in body:
            return 400, {"error": {"message": f"Unsupported parameter: '{refused_option}'"}}
        return with_probabilities(serving, body) if "logprobs" in body else (200, answer(sentiment(body)))

    server.reply = choosy
    out, _ = passed(label())
    assert "100.0% right" in out
    tries = 2 if refused_option == "top_logprobs" else 1  # fewer of them are tried, too
    assert len([body for body in server.asked if refused_option in body]) <= 8 * tries


def test_repeated_calls_count_and_a_budget_leaves_fewer_votes(
    label: Callable[..., Any], server: Server, tmp_path: Path
) -> None:
    server.reply = without_probabilities
    assert "all 30 calls of --max-calls are made" in refused(label("--votes", 5, "--max-calls", 30))
    assert len(server.asked) == 30
    kept = len(read_rows(tmp_path / "out.answers"))
    assert kept >= 4
    server.reply = lambda *_: (429, {"error": {"message": "slow down"}})
    assert "all 10 calls of --max-calls are made" in refused(label("--votes", 5, "--max-calls", 10))
    assert len(server.asked) == 40


def test_a_text_that_is_refused_is_left_out(
    label: Callable[..., Any],
    server: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not asked again; where all are refused, or many in a row, the reason is the message, and they are."""

    def filtered(serving: Server, body: dict[str, Any]) -> tuple[int, Any]:
        if "lovely" in body["messages"][0]["content"]:
            return 400, {"error": {"message": "content management policy"}}
        return with_probabilities(serving, body)

    server.reply = lambda *_: (400, {"error": {"message": "no such region"}})
    assert "no such region; nothing was answered" in refused(label())
    assert not (tmp_path / "out.answers").exists()
    server.reply = filtered
    passed(label())
    rows, asked = read_rows(tmp_path / "out.jsonl"), len(server.asked)
    assert 0 < len(rows) < 20
    assert not any("lovely" in row["text"] for row in rows)
    refused_texts = 20 - len(rows)
    assert f"refuses {refused_texts} texts, which are left out; the last one: " in caplog.text
    passed(label())
    assert len(server.asked) == asked
    (tmp_path / "out.answers").unlink()
    monkeypatch.setattr("metakd.labelling.endpoint.TRIED", 3)
    before = len(server.asked)
    server.reply = lambda serving, body: (
        with_probabilities(serving, body)
        if len(serving.asked) <= before + 8
        else (400, {"error": {"message": "your balance is too low"}})
    )
    assert "your balance is too low; what was answered is kept" in refused(label())
    assert 8 <= len(read_rows(tmp_path / "out.answers")) < 12


def test_votes_that_were_paid_for_count(
    label: Callable[..., Any], server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the third is an error that does not pass."""

    def third_fails(serving: Server, body: dict[str, Any]) -> tuple[int, Any]:
        earlier = [each for each in serving.asked if each["messages"] == body["messages"]]
        return (404, {}) if len(earlier) == 3 else (200, answer(sentiment(body)))

    server.reply = third_fails
    out, _ = passed(label("--votes", 3))
    assert "20 texts, of which 20 have a label: 100.0% right" in out
    assert "some texts have fewer than 3 votes" in caplog.text


def test_a_model_that_thinks_gets_room_for_it(label: Callable[..., Any], server: Server) -> None:
    """The thought may name the other label; what follows it is the answer."""

    def thinking(_: Server, body: dict[str, Any]) -> tuple[int, Any]:
        thought = f"<think>\nnegative or positive? not negative, positive. {'Hm. ' * 20}"
        return 200, answer(thought if body["max_tokens"] < 100 else f"{thought}</think>\n\n{sentiment(body)}")

    server.reply = thinking
    out, _ = passed(label())
    assert "100.0% right" in out
    assert len([body for body in server.asked if body["max_tokens"] < 100]) <= 8


def test_an_api_that_tells_fewer_probabilities_is_asked_for_those(label: Callable[..., Any], server: Server) -> None:
    """Its error is in another form than OpenAI's."""

    def few(serving: Server, body: dict[str, Any]) -> tuple[int, Any]:
        if body["top_logprobs"] > 5:
            return 422, {"detail": [{"loc": ["body", "top_logprobs"], "msg": "Input should be at most 5"}]}
        return with_probabilities(serving, body)

    server.reply = few
    out, _ = passed(label())
    assert "100.0% right" in out
    assert {body["top_logprobs"] for body in server.asked} == {20, 5}


def test_a_text_that_is_too_long_changes_no_option(label: Callable[..., Any], server: Server) -> None:
    server.reply = lambda serving, body: (
        (400, {"error": {"message": "'max_tokens' is too large: 20. This model's maximum context length is 4096"}})
        if "was" in body["messages"][0]["content"]
        else with_probabilities(serving, body)
    )
    passed(label())
    assert {body["max_tokens"] for body in server.asked} == {20}


def test_what_is_under_way_is_kept_where_the_work_is_stopped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def stopping(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            request_stop()
        return futures.wait(*arguments, **options)

    monkeypatch.setattr("metakd.labelling.endpoint.wait", stopping)
    api, answered = Endpoint(server.url, "m", 100, 1, None, None), list[int]()
    scores = api.scores([e.text for e in toy_examples(20, 0, "t")], ["negative", "positive"])
    with pytest.raises(Stopped), signals_handled(), graceful_shutdown():
        answered.extend(row for rows, _ in scores for row in rows)
    assert 0 < len(answered) == len(server.asked) <= 8


def test_damaged_answers_are_asked_again(label: Callable[..., Any], server: Server, tmp_path: Path) -> None:
    passed(label())
    asked, path = len(server.asked), tmp_path / "out.answers"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([whole[0], b"\0" * 40 + b"\n", *whole[2:]]))
    out, _ = passed(label())
    assert "20 texts" in out
    assert len(server.asked) == asked + 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("No.", 1),
        ("I cannot tell", None),
        ("**yes**", 0),
        ("The answer is yes", 0),
        ("yes or no", None),
        ("", None),
        ("not yes", None),
        ("It isn't yes", None),
        ("non-yes", None),
        ("The answer is no", 1),
        ("yes, that is not hard", 0),
        ("I am not sure, but yes", 0),
        ("I never doubt that it is yes", 0),
        ("That is not a clear yes", None),
    ],
)
def test_a_label_is_named_by_a_whole_word(text: str, place: int | None) -> None:
    assert named_label(text, ["yes", "no"]) == place


@pytest.mark.parametrize(
    ("text", "words", "place"),
    [
        ("The text is non-toxic.", ["toxic", "non-toxic"], 1),
        ("The text is toxic.", ["toxic", "non-toxic"], 0),
        ("It is toxic, not non-toxic", ["toxic", "non-toxic"], None),
        ("I would say: very positive", ["positive", "very positive"], 1),
        ("That is a hard case", ["A", "B"], None),
        ("I choose A", ["A", "B"], 0),
        ("b", ["A", "B"], 1),
        ("The answer is B.", ["a", "b"], 1),
    ],
)
def test_a_label_within_another_is_not_named(text: str, words: list[str], place: int | None) -> None:
    assert named_label(text, words) == place


def test_a_reply_that_is_empty_as_it_was_too_long_has_an_unfinished_thought() -> None:
    """Some APIs keep the thought in a field of its own."""
    empty = choice_of("", None)
    assert not is_unfinished_thought(empty)
    assert is_unfinished_thought(SimpleNamespace(**vars(empty), finish_reason="length"))
    assert not is_unfinished_thought(SimpleNamespace(**vars(empty), finish_reason="stop"))


def test_probabilities_are_those_of_the_first_word_after_the_thought() -> None:
    def token(text: str, **p: float) -> SimpleNamespace:
        return SimpleNamespace(
            token=text, top_logprobs=[SimpleNamespace(token=word, logprob=math.log(each)) for word, each in p.items()]
        )

    tokens = [token("<think>", positive=0.9), token("hm</think>", positive=0.9), token("\n\n", positive=0.9)]
    tokens += [token("**", positive=0.9), token("neg", neg=0.8, pos=0.2), token("ative", positive=0.9)]
    choice = choice_of("<think>hm</think>\n\n**negative**", tokens)
    assert token_probabilities(choice, ["negative", "positive"]) == pytest.approx([0.8, 0.2])


def test_a_sign_is_part_of_a_label() -> None:
    tokens = [
        SimpleNamespace(token=text, top_logprobs=[SimpleNamespace(token=text, logprob=0.0)]) for text in ("-", "1")
    ]
    assert token_probabilities(choice_of("-1", tokens), ["-1", "0", "1"]) == [1, 0, 0]


def test_neighbours_that_are_refused_together_do_not_stop_the_work(
    label: Callable[..., Any], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API refuses the first ten of thirty texts: more than TRIED in a row as the file has them."""
    monkeypatch.setattr("metakd.labelling.endpoint.TRIED", 6)
    rows = [{"text": f"{'bad' if i < 10 else 'lovely'} page {i}"} for i in range(30)]
    refusal = 400, {"error": {"message": "content filter"}}
    server.reply = lambda serving, body: (
        refusal if "bad page" in body["messages"][0]["content"] else with_probabilities(serving, body)
    )
    texts = write_rows(tmp_path / "grouped.jsonl", rows)
    passed(label("--data", texts, "--labels", "negative,positive", "--parallel", 1))
    assert len(read_rows(tmp_path / "out.jsonl")) == 20


def test_so_many_calls_are_made_at_a_time(label: Callable[..., Any], server: Server) -> None:
    lock, now, most = threading.Lock(), 0, list[int]()

    def slow(serving: Server, body: dict[str, Any]) -> tuple[int, Any]:
        nonlocal now
        with lock:
            now += 1
            most.append(now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return with_probabilities(serving, body)

    server.reply = slow
    passed(label("--parallel", 2))
    assert max(most) == 2


def test_a_second_command_waits_for_the_first(
    label: Callable[..., Any], server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held, asked = threading.Event(), list[int]()

    def hold() -> None:
        with FileLock(tmp_path / ".out.answers.lock"):
            held.set()
            time.sleep(1)
            asked.append(len(server.asked))

    threading.Thread(target=hold).start()
    held.wait()
    passed(label())
    assert asked == [0]
    assert "waiting: another process asks for these labels" in caplog.text


def test_a_prompt_and_a_chats_message_are_what_is_sent(
    label: Callable[..., Any], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "prompt.txt").write_text("Review: {text}\nOne of {labels}:")
    passed(label("--prompt", tmp_path / "prompt.txt"))
    sent = {body["messages"][0]["content"] for body in server.asked}
    assert sent == {f"Review: {e.text}\nOne of negative, positive:" for e in toy_examples(20, 0, "t")}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"neg": 0.5, "Pos": 0.3, " pos": 0.1}, [5 / 9, 4 / 9]),
        ({"**": 0.99, "neg": 0.006}, None),
        ({"n": 0.9, "ne": 0.05, "p": 0.05}, None),
        ({"negative": 0.7, "n": 0.01, "positive": 0.1}, [7 / 8, 1 / 8]),
        ({"negative": 0.5, "ne": 0.4, "positive": 0.1}, None),
        (None, None),
    ],
)
def test_first_tokens_that_do_not_tell_labels_apart_tell_nothing(
    reply: dict[str, float] | None, expected: list[float] | None
) -> None:
    """Here neutral is a label too, so that `n` and `ne` may begin either."""
    top = [SimpleNamespace(token=token, logprob=math.log(p)) for token, p in (reply or {}).items()]
    content = [SimpleNamespace(top_logprobs=top)] if reply else None
    p = token_probabilities(choice_of("Negative", content), ["negative", "positive", "neutral"])
    assert p == (None if expected is None else pytest.approx([*expected, 0]))


def choice_of(text: str, content: list[SimpleNamespace] | None) -> SimpleNamespace:
    return SimpleNamespace(message=SimpleNamespace(content=text), logprobs=SimpleNamespace(content=content))


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("A text about billing", False),
        ("A calm text", False),
        ("I cannot tell.", False),
        ("Angry.", True),
        ("ang", True),
        ("A case of an angry customer", True),
        ("Calm", True),
        ("Angrier than before", False),
        ("Angry-ish", True),
        ("Informatively", True),
    ],
)
def test_a_first_token_counts_if_the_reply_goes_on_as_a_label(text: str, counts: bool) -> None:
    """'A' and 'I' begin a sentence as well as a label; of a reply drawn by chance the likeliest may be another."""
    content = [SimpleNamespace(top_logprobs=[SimpleNamespace(token=text.split()[0][:1], logprob=math.log(0.97))])]
    top = content if text != "Calm" else [SimpleNamespace(top_logprobs=[SimpleNamespace(token="A", logprob=-0.1)])]
    p = token_probabilities(choice_of(text, top), ["angry", "calm", "informative"])
    assert (p is not None) == counts


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, {"error": {"message": "bad key"}}), "refuses the key, which is to be in OPENAI_API_KEY"),
        ((403, {"error": {"message": "no"}}), "refuses the key"),
        ((404, {"error": {"message": "no model m"}}), "no model m"),
        ((429, {"error": {"message": "slow down"}}), "slow down"),
        ((500, {"error": {"message": "out of order"}}), "out of order"),
        ((200, b"<html>rubbish</html>"), "is it an OpenAI-compatible API?"),
        ((200, {"choices": [{}]}), "no answer names a label, for example ''; change --prompt"),
        ((200, {"choices": []}), "what comes back is no answer"),
        ((200, answer("I cannot tell.")), "no answer names a label, for example 'I cannot tell.'; change --prompt"),
        ((200, answer("negative or positive")), "no answer names a label"),
    ],
)
def test_an_endpoint_that_fails(
    label: Callable[..., Any],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reply: tuple[int, Any],
    message: str,
) -> None:
    monkeypatch.setattr("metakd.labelling.endpoint.TRIED", 5)
    server.reply = lambda *_: reply
    assert message in refused(label())
    assert not (tmp_path / "out.jsonl").exists()


def test_what_is_not_there_and_what_takes_too_long(
    label: Callable[..., Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metakd.labelling.endpoint.RETRIES", 0)
    assert "--endpoint 'http://localhost:PORT/v1': not an address" in refused(label(url="http://localhost:PORT/v1"))
    said = refused(label(url="http://127.0.0.1:9/v1"))
    assert "Connection error; is a server running there?; nothing was answered" in said
    monkeypatch.setattr("metakd.labelling.endpoint.SECONDS", 0.2)
    server.reply = lambda *_: (time.sleep(1), (200, answer("positive")))[1]
    assert "timed out" in refused(label())


def test_flags_that_need_an_endpoint(metakd: Command, tmp_path: Path) -> None:
    texts = write_rows(tmp_path / "texts.jsonl", [as_row(e) for e in toy_examples(4, 0, "t")])
    said = refused(metakd("label", "--data", texts, "--output", tmp_path / "o.jsonl", "--model", "m", "--votes", 3))
    assert "--votes: only with --endpoint; add that, or leave this out" in said
