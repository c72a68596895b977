"""What all layers have in common."""

import pytest

from marchproxy.dataplane.proxy.protocol.admission import DEADLINE, Admission
from marchproxy.dataplane.proxy.protocol.exchange import (
    MAX_AHEAD,
    Ask,
    Close,
    Elapsed,
    Ended,
    Event,
    Opened,
    Received,
    Refused,
    Relay,
    Request,
    Send,
    Speech,
    Started,
    Unfit,
    WakeAt,
)
from marchproxy.model.reason import Reason
from tests.dataplane.proxy.protocol.conversation import BEGIN, OPENED, Conversation, held

REQUEST = Request(Speech.PREFACE, None, None)


class Dot(Admission):
    """Asks at the first dot; a stroke is answered with one, an exclamation mark is unfit."""

    def _read(self) -> None:
        if b"/" in self._held:
            self._send(b"/")
        if b"!" in self._held:
            raise Unfit(Reason.MALFORMED, "a cry")
        if b"." in self._held:
            self._ask(REQUEST)

    def _admitted(self, opened: Opened) -> None:
        if opened.local_port == 0:
            raise Unfit(Reason.NO_NAT_PORT)
        self._relay(bytes(self._held))

    def _told(self, unfit: Unfit) -> bytes:
        return b"" if unfit.reason is Reason.TOO_SLOW else unfit.reason.name.encode()


def test_it_holds_what_comes_until_it_is_answered() -> None:
    conversation = Conversation(Dot())
    assert conversation.say(b"a") == []
    assert conversation.say(b".b") == [WakeAt(None), Ask(REQUEST)]
    assert conversation.say(b"c") == []
    assert conversation.hear(OPENED) == [Relay(b"a.bc")]
    assert held(conversation.layer) == 0


def test_what_is_unfit_ends_it_after_what_was_said_before() -> None:
    told = [Send(b"/"), Send(b"MALFORMED"), Close(Reason.MALFORMED, "a cry")]
    assert Conversation(Dot()).say(b"/!") == told


def test_an_admitted_client_may_be_refused_at_the_last_moment() -> None:
    conversation = Conversation(Dot())
    conversation.say(b".")
    assert conversation.hear(Opened(OPENED.local, 0))[-1] == Close(Reason.NO_NAT_PORT)


def test_a_deadline_ends_reading_and_nothing_later() -> None:
    slow = Conversation(Dot())
    assert slow.wake_at == BEGIN + DEADLINE
    assert [type(command) for command in slow.wait()] == [Close]
    asked = Conversation(Dot())
    asked.say(b".")
    assert asked.hear(Elapsed()) == []


def test_too_much_is_refused_before_and_after_the_question() -> None:
    before = Conversation(Dot())
    before.say(bytes(MAX_AHEAD) + b".")
    assert before.asked == []
    assert before.reason() is Reason.MALFORMED
    after = Conversation(Dot())
    after.say(b".")
    after.say(bytes(MAX_AHEAD))
    assert after.reason() is Reason.MALFORMED


def test_an_answer_without_a_question_is_ignored() -> None:
    conversation = Conversation(Dot())
    assert conversation.hear(OPENED) == conversation.hear(Refused(Reason.NO_MAPPING)) == []


@pytest.mark.parametrize("event", [Started(), Received(b"."), Ended(), Elapsed(), OPENED])
def test_after_the_end_it_says_nothing(event: Event) -> None:
    conversation = Conversation(Dot())
    conversation.hear(Ended())
    assert conversation.layer.handle(event, BEGIN) == []
