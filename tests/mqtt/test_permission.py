"""edge/_permission against what the standard says in Python."""

import string

from hypothesis import given
from hypothesis import strategies as st

from edge.decoding.contract import topic_matches
from edge.mqtt._permission import Permission, is_forbidden

LEVELS = st.sampled_from(["", "a", "b", "ab", "ä", "sensors"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(lambda levels, last: "/".join([*levels, *last]), st.lists(st.one_of(LEVELS, st.just("+")), min_size=0, max_size=4),
                    st.sampled_from([[], ["#"]])).filter(bool)


@given(st.lists(FILTERS, max_size=5), st.lists(TOPICS, max_size=6))
def test_a_permission_allows_what_a_filter_matches(filters, topics):
    permission = Permission(text.encode() for text in filters)
    for topic in topics * 2:                             # the second time from memory
        assert permission.may(topic.encode()) is any(topic_matches(text, topic.encode()) for text in filters)


@given(st.text(st.one_of(st.sampled_from(string.ascii_letters + "/$"), st.characters(blacklist_categories=("Cs",))), max_size=60), st.integers(0, 20), st.sampled_from(["", "\x00", "\x1f", " ", "~", "\x7f", "\x80", "\x9f", "\xa0", "ß", "\u0400", "\u2080"]))
def test_dollar_and_control_characters_are_forbidden_wherever_they_stand(text, at, extra):
    text = text[:at] + extra + text[at:]
    assert is_forbidden(text.encode()) is (text.startswith("$") or any(c < " " or "\x7f" <= c <= "\x9f" for c in text))


def test_a_topic_longer_than_what_is_remembered_is_allowed_every_time():
    permission = Permission([b"a/#"])
    for size in (10, 124, 125, 126, 127, 1000):
        topic = b"a/" + b"x" * size
        assert permission.may(topic) and permission.may(topic) and not permission.may(b"b" + topic[1:]) and permission.may(topic)
    assert not Permission([]).may(b"a") and not Permission([]).may(b"")
