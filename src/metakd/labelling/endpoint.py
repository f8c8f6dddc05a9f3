"""A language model behind an OpenAI-compatible API, as a source of labels. The key comes from the environment alone."""

import contextlib
import math
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from metakd.labelling.answers import AllRefusedError
from metakd.labelling.replies import is_unfinished_thought, named_label, reply_text, token_probabilities
from metakd.utils.artifacts import fingerprint
from metakd.utils.console import notice
from metakd.utils.errors import InputError, as_input_error, error_summary, require, shown
from metakd.utils.signals import stop_requested

KEY = "OPENAI_API_KEY"
SECONDS, SECONDS_OF_THOUGHT = 60.0, 600.0  # to wait for an answer
PARALLEL = 8  # calls at a time
RETRIES, FIRST_PAUSE = 5, 0.5  # after errors that may pass; seconds, doubled each time, unless the API says how long
CHARACTERS = 4  # of a token, about
LONGEST_ANSWER, THINKING = 20, 2_000  # tokens, also of a model that thinks first
REFUSALS = (400, 403, 422)  # by which APIs say that they do not know an option
OF_A_TEXT = (400, 413, 422)  # by which they refuse a text: for its length, or for what it says
LENGTH = ("context", "too large", "too long")  # in messages about a text, which may name an option as well
FEWER_PROBABILITIES = 5  # of tokens, where an API tells no more
LEAST = 1e-4  # probability of a label that no answer names
TRIED = 20  # first answers, one of which at least has to name a label
KEPT, NOTHING = "what was answered is kept; the same command goes on from there", "nothing was answered"


class Endpoint:
    """Scores labels by the probability of the answer's first token where the API tells it, or else by votes."""

    def __init__(
        self,
        url: str,
        model: str,
        max_length: int,
        votes: int = 1,
        max_calls: int | None = None,
        calls_per_minute: int | None = None,
        parallel: int = PARALLEL,
    ) -> None:
        """Connect to an API; nothing is asked yet.

        Args:
            url: Where the API is, as in https://api.openai.com/v1.
            model: The name of the model there.
            max_length: Tokens of a text that are sent, taken as four characters each.
            votes: Answers for a text where the API tells no probabilities: the likeliest, and others by chance.
            max_calls: The most calls, repeated ones included, or None.
            calls_per_minute: The most calls in a minute, or None.
            parallel: Calls at a time.

        Raises:
            InputError: The package openai is missing.
        """
        if not url.startswith(("http://", "https://")):
            raise InputError(f"--endpoint {shown(url)}: not an address, which begins with http:// or https://")
        self._api = require("openai", "api")
        key = os.environ.get(KEY) or "none"  # a server of one's own needs none
        with as_input_error(f"--endpoint {shown(url)}: not an address"):
            self._client = self._api.OpenAI(base_url=url, api_key=key, timeout=SECONDS, max_retries=0)
        self.url, self.model, self.votes = url.rstrip("/"), model, votes
        self.max_length, self.max_calls, self.calls, self.parallel = max_length, max_calls, 0, parallel
        self._pause = 60 / calls_per_minute if calls_per_minute else 0.0
        self._next, self._lock, self._stopped = time.monotonic(), threading.Lock(), threading.Event()
        self._options: dict[str, Any] = {"logprobs": True, "top_logprobs": 20, "max_tokens": LONGEST_ANSWER}
        self._unknown = set[str]()  # options that the API has refused
        self.identity = fingerprint("endpoint", self.url, model, votes)

    def shortened(self, text: str) -> str:
        return text[: CHARACTERS * self.max_length]

    def scores(
        self, prompts: Sequence[str], words: Sequence[str]
    ) -> Iterator[tuple[list[int], list[list[float] | None]]]:
        """The row of each prompt as it is answered, and the logarithms of the labels' probabilities (1, M).

        None stands for an answer that names no label, and for a text that is refused before others are answered.

        Raises:
            AllRefusedError: The API refuses all prompts.
            InputError: It refuses the key or the model, is not reached, or names no label; or `max_calls` are made.
        """
        error: BaseException | None = None
        refusal: Any = None
        held, refused, usable, unusable = list[int](), 0, 0, 0  # held: refused, maybe not for what a text says
        for row, future in self._answered(prompts, words):
            problem = future.exception()
            if isinstance(problem, self._api.APIStatusError) and problem.status_code in OF_A_TEXT:
                refusal, refused = problem, refused + 1
                held.append(row)
            elif problem:
                error = error or problem
                self._stopped.set()
            else:
                values, text = future.result()
                yield [row, *held], [values, *[None] * len(held)]
                usable, unusable, held = usable + (values is not None), unusable + (values is None), []
            if len(held) == TRIED:
                self._stopped.set()
                error = error or refusal
            if unusable == TRIED and not usable:
                self._stopped.set()
                error = error or InputError(f"no answer names a label, for example {shown(text)}; change --prompt")
        if stop_requested():
            return
        if error:
            raise self._explained(error, KEPT if usable or unusable else NOTHING)
        if refused and not (usable or unusable):
            raise AllRefusedError(str(self._explained(refusal, NOTHING)))
        if refused:
            yield held, [None] * len(held)
            notice(f"{self.url} refuses {refused:,} texts, which are left out; the last one: {_message_of(refusal)}")

    def _answered(self, prompts: Sequence[str], words: Sequence[str]) -> Iterator[tuple[int, Future[Any]]]:
        """The row of each prompt with what became of it, until it is stopped; `parallel` are asked at a time.

        In random order, as neighbours in a file may be refused together. After a signal, what is under way is awaited.
        """
        order = random.Random(0).sample(range(len(prompts)), len(prompts))
        todo, running = iter(order), dict[Future[Any], int]()
        with ThreadPoolExecutor(self.parallel) as pool:
            try:
                while True:
                    if stop_requested() and not self._stopped.is_set():
                        notice("stopping once the calls under way are answered, which are paid for")
                        self._stopped.set()
                    free = 0 if self._stopped.is_set() else self.parallel - len(running)
                    running |= {pool.submit(self._ask, prompts[row], words): row for row in islice(todo, free)}
                    if not running:
                        return
                    for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
                        yield running.pop(future), future
            finally:
                self._stopped.set()  # so that calls that wait for their turn are not made

    def _ask(self, prompt: str, words: Sequence[str]) -> tuple[list[float] | None, str]:
        """Log-probabilities of the labels (M,), or None if no answer names one; and the first answer's text."""
        reply = self._reply(prompt, temperature=0.0)
        texts, p = [reply_text(reply)], token_probabilities(reply, words)
        if p is None:
            if self.votes == 1:
                notice(
                    "where the API returns no probabilities of a label's tokens, the label that is named counts as "
                    "certain; --votes samples more answers"
                )
            try:
                while len(texts) < self.votes:
                    texts.append(reply_text(self._reply(prompt, temperature=1.0)))
            except (InputError, self._api.APIError):  # those that are there are paid for
                notice(f"some texts have fewer than {self.votes} votes, as calls failed or are spent")
            named = Counter(place for text in texts if (place := named_label(text, words)) is not None)
            if not named:
                return None, texts[0]
            p = [named[place] / named.total() for place in range(len(words))]
        return [math.log(max(each, LEAST)) for each in p], texts[0]

    def _reply(self, prompt: str, temperature: float) -> Any:
        """A reply, with the probabilities of its first tokens if the API tells them; asks again after some errors."""
        asked: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        failed = 0
        while True:
            self._wait()
            options = self._options
            seconds = SECONDS_OF_THOUGHT if THINKING in options.values() else SECONDS
            more = options if "temperature" in self._unknown else options | {"temperature": temperature}
            try:
                reply = self._client.chat.completions.create(**asked, **more, timeout=seconds).choices[0]
                if not (is_unfinished_thought(reply) and self._lengthen(more)):
                    return reply
            except (self._api.APIStatusError, self._api.APIConnectionError) as error:
                if self._leave_out(error, more):
                    continue
                passes = (self._api.RateLimitError, self._api.InternalServerError, self._api.APIConnectionError)
                if not isinstance(error, passes) or failed == RETRIES:
                    raise
                self._stopped.wait(_pause_of(error) or FIRST_PAUSE * 2**failed)
                failed += 1
            except (ValueError, TypeError, AttributeError, IndexError):
                raise InputError(f"{self.url}: what comes back is no answer; is it an OpenAI-compatible API?") from None

    def _leave_out(self, error: Exception, sent: Mapping[str, Any]) -> bool:
        """Whether an option that the API does not know, as its error says, was sent; from now on it is left out."""
        message = _message_of(error)
        named = [name for name in sent if name in message]
        if not named or not isinstance(error, self._api.APIStatusError) or error.status_code not in REFUSALS:
            return False
        if any(word in message for word in LENGTH) and "max_tokens" in named:
            return False
        with self._lock:
            if "top_logprobs" in named and sent["top_logprobs"] > FEWER_PROBABILITIES:
                self._options |= {"top_logprobs": FEWER_PROBABILITIES}
                return True
            if "logprobs" in message:
                named += ["logprobs", "top_logprobs"]
            if "max_tokens" in named:  # models that think before they answer
                self._options |= {"max_completion_tokens": THINKING}
            self._unknown |= {*named}
            self._options = {name: value for name, value in self._options.items() if name not in self._unknown}
        return True

    def _lengthen(self, sent: Mapping[str, Any]) -> bool:
        """Whether a longer answer may be had than with the options that were sent; from now on, it is asked for."""
        name = "max_completion_tokens" if "max_completion_tokens" in sent else "max_tokens"
        if sent.get(name, THINKING) >= THINKING:
            return False
        with self._lock:
            self._options |= {name: THINKING}
        return True

    def _wait(self) -> None:
        """Count a call, once it may be made."""
        with self._lock:
            if self.calls == self.max_calls:
                raise _SpentError(f"all {self.max_calls} calls of --max-calls are made")
            self.calls += 1
            now = time.monotonic()
            delay = max(0.0, self._next - now)
            self._next = now + delay + self._pause
        if self._stopped.wait(delay):
            raise _SpentError("stopped")

    def _explained(self, error: BaseException, kept: str) -> BaseException:
        """An InputError for what goes wrong at the API."""
        text = _message_of(error)[:300].rstrip(".")
        if isinstance(error, InputError):
            return InputError(f"{text}; {kept}")
        if isinstance(error, self._api.AuthenticationError | self._api.PermissionDeniedError):
            return InputError(f"{self.url} refuses the key, which is to be in {KEY} ({text}); {kept}")
        if isinstance(error, self._api.APIConnectionError):
            text = f"{text}; is a server running there?"
        return InputError(f"{self.url}: {text}; {kept}") if isinstance(error, self._api.OpenAIError) else error


def _message_of(error: BaseException) -> str:
    """The message of an error, with what the API answered where the package openai leaves that out."""
    message, body = error_summary(error), getattr(error, "body", None)
    return f"{message} ({body})" if body and re.fullmatch(r"Error code: \d+", message) else message


class _SpentError(InputError):
    """No further call may be made."""


def _pause_of(error: Exception) -> float | None:
    """The seconds after which the API wants to be asked again, if it says so."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    with contextlib.suppress(ValueError):
        for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            if name in headers:
                return min(SECONDS, unit * float(headers[name]))
    return None
