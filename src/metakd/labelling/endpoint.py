"""A language model behind an OpenAI-compatible API, as a source of labels. The key comes from the environment alone."""

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from metakd.utils.artifacts import fingerprint
from metakd.utils.errors import InputError, error_summary, require, shown

KEY = "OPENAI_API_KEY"
SECONDS, RETRIES = 60.0, 5  # to wait for an answer, and to ask again after errors that may pass
PARALLEL = 8  # calls at a time
CHARACTERS = 4  # of a token, about
ALTERNATIVES = 20  # tokens whose probability an API tells, at most
LONGEST_ANSWER = 20  # tokens
LEAST = 1e-4  # probability of a label that no answer names
TRIED = 20  # first answers, one of which at least has to name a label


class Endpoint:
    """Scores labels by the probability of the answer's first token where the API tells it, or else by votes."""

    def __init__(
        self, url: str, model: str, max_length: int, votes: int, max_calls: int | None, calls_per_minute: int | None
    ) -> None:
        """Connect to an API; nothing is asked yet.

        Args:
            url: Where the API is, as in https://api.openai.com/v1.
            model: The name of the model there.
            max_length: Tokens of a text that are sent, taken as four characters each.
            votes: Answers to draw for a text where the API tells no probabilities.
            max_calls: The most calls, or None.
            calls_per_minute: The most calls in a minute, or None.

        Raises:
            InputError: The package openai is missing.
        """
        self._api = require("openai", "api")
        key = os.environ.get(KEY) or "none"  # servers of one's own ask for none
        self._client = self._api.OpenAI(base_url=url, api_key=key, timeout=SECONDS, max_retries=RETRIES)
        self.url, self.model, self.votes = url, model, votes
        self.max_length, self.max_calls, self.calls = max_length, max_calls, 0
        self._pause = 60 / calls_per_minute if calls_per_minute else 0.0
        self._next, self._lock = time.monotonic(), threading.Lock()
        self._tells = True  # whether it tells probabilities, as far as is known
        self.unusable: list[str] = []  # answers that name no label
        self.identity = fingerprint("endpoint", url, model, votes)

    def shortened(self, text: str) -> str:
        return text[: CHARACTERS * self.max_length]

    def scores(self, prompts: Sequence[str], words: Sequence[str]) -> Iterator[tuple[list[int], list[list[float]]]]:
        """The row of each prompt as it is answered, and the logarithms of the labels' probabilities (1, M).

        Raises:
            InputError: The API refuses, is not reached, or answers with no label; or `max_calls` are made.
        """
        with ThreadPoolExecutor(PARALLEL) as pool:
            for start in range(0, len(prompts), PARALLEL):
                rows = range(start, min(start + PARALLEL, len(prompts)))
                asked = {row: pool.submit(self._ask, prompts[row], words) for row in rows}
                wait(asked.values())
                for row, future in asked.items():  # what was paid for first
                    if not future.exception() and (scores := future.result()) is not None:
                        yield [row], [scores]
                self._raise(asked.values(), rows.stop)

    def _raise(self, futures: Iterable[Future[Any]], done: int) -> None:
        """Raise the first error as an InputError, or one for answers that are all unusable."""
        error = next((error for future in futures if (error := future.exception())), None)
        kept = "what was answered is kept; the same command goes on from there"
        if isinstance(error, InputError):
            raise InputError(f"{error}; {kept}")
        if isinstance(error, self._api.AuthenticationError | self._api.PermissionDeniedError):
            raise InputError(f"{self.url} refuses the key: set {KEY} to one that it knows; {kept}")
        if isinstance(error, self._api.OpenAIError):
            raise InputError(f"{self.url}: {error_summary(error)[:300]}; {kept}")
        if error:
            raise error
        if len(self.unusable) >= min(done, TRIED):
            raise InputError(f"no answer names a label, for example {shown(self.unusable[0])}; change --prompt")

    def _ask(self, prompt: str, words: Sequence[str]) -> list[float] | None:
        """Log-probabilities of the labels (M,), or None if no answer names one."""
        choice = self._choice(prompt, temperature=0.0)
        if (probabilities := _probabilities(choice, words)) is not None:
            return [math.log(max(p, LEAST)) for p in probabilities]
        answers = [choice] if self.votes == 1 else [self._choice(prompt, 1.0) for _ in range(self.votes)]
        texts = [str(answer.message.content or "") for answer in answers]
        named = Counter(place for text in texts if (place := _named(text, words)) is not None)
        if not named:
            self.unusable.append(texts[0])
            return None
        shares = [named[place] / named.total() for place in range(len(words))]
        return [math.log(max(p, LEAST)) for p in shares]

    def _choice(self, prompt: str, temperature: float) -> Any:
        """One answer, with the probabilities of its first tokens if the API tells them."""
        message = {"role": "user", "content": prompt}
        how: dict[str, Any] = {"model": self.model, "messages": [message], "temperature": temperature}
        while True:
            self._wait()
            more = {"logprobs": True, "top_logprobs": ALTERNATIVES} if self._tells else {}
            try:
                answer = self._client.chat.completions.create(**how, **more, max_tokens=LONGEST_ANSWER)
            except self._api.BadRequestError as error:
                if not (more and "logprobs" in str(error)):
                    raise
                self._tells = False
                continue
            except ValueError:
                answer = None
            if not getattr(answer, "choices", None):
                raise InputError(f"{self.url}: what comes back is not an answer; is it an OpenAI-compatible API?")
            return answer.choices[0]

    def _wait(self) -> None:
        """Count a call, once it may be made."""
        with self._lock:
            if self.calls == self.max_calls:
                raise InputError(f"--max-calls {self.max_calls} are made")
            self.calls += 1
            now = time.monotonic()
            self._next = max(self._next, now) + self._pause
            delay = self._next - self._pause - now
        time.sleep(max(0.0, delay))


def _probabilities(choice: Any, words: Sequence[str]) -> list[float] | None:
    """Of each label, by the first token of the answer; None where that does not tell labels apart."""
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not content:
        return None
    p = [0.0] * len(words)
    for each in content[0].top_logprobs:
        begins = each.token.strip().casefold()
        places = [place for place, text in enumerate(words) if begins and text.casefold().startswith(begins)]
        if len(places) > 1:
            return None
        for place in places:
            p[place] += math.exp(each.logprob)
    return [each / sum(p) for each in p] if sum(p) else None


def _named(answer: str, words: Sequence[str]) -> int | None:
    """The place of the label that an answer names; None for none or several."""
    plain = answer.strip(" \n\t.\"'*`").casefold()
    exact = [place for place, text in enumerate(words) if text.casefold() == plain]
    within = [place for place, text in enumerate(words) if text.casefold() in plain]
    return exact[0] if exact else within[0] if len(within) == 1 else None
