"""`unidiff chat`: turns from stdin, pictures, and the cache between turns."""

import pytest

from unidiff.cli.chat import Conversation
from unidiff.cli.options import ModelChoice
from unidiff.cli.session import open_session

SHORT = ("--max-new-tokens", 6)


@pytest.fixture(scope="module")
def session(tiny_checkpoint):
    return open_session(ModelChoice(tiny_checkpoint))


def test_each_line_of_stdin_gets_a_line(run_command, picture):
    result = run_command(
        "chat", "--image", picture, *SHORT, stdin="what is this?\n\nsay that again.\n"
    )
    assert result.code == 0
    assert result.out.count("\n") >= 2


def test_quit_ends_before_the_next_line(run_command):
    assert run_command("chat", *SHORT, stdin="/quit\nhello\n").out == ""


def test_a_wrong_command_is_explained_and_the_chat_goes_on(run_command):
    result = run_command("chat", *SHORT, stdin="/image nowhere.png\n/what\nhello\n")
    assert result.code == 0
    assert "nowhere.png" in result.err
    assert "/image PATH" in result.err
    assert result.out != ""


def test_a_missing_picture_is_one_line(run_command):
    result = run_command("chat", "--image", "nowhere.png", stdin="hello\n")
    assert result.code == 2
    assert "nowhere.png" in result.err


def test_a_second_turn_on_the_cache_equals_a_fresh_start(session, picture):
    options = {"max_new_tokens": 6, "seed": 0}
    kept = Conversation(session, options, picture)
    fresh = Conversation(session, options, picture)
    for text in ("what is this?", "is it a bag?", "say that again."):
        fresh.cache = None
        assert kept.say(text).value == fresh.say(text).value
    assert kept.cache is not None


def test_a_new_conversation_forgets(session, picture):
    conversation = Conversation(session, {"max_new_tokens": 4, "seed": 0}, picture)
    conversation.say("what is this?")
    conversation.restart()
    assert conversation.messages == []
    assert conversation.image is None
    assert conversation.cache is None
