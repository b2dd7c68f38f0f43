"""Values that nobody expects, for every campaign: texts, numbers, JSON, damaged bytes."""

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st


def once_in(count: int) -> st.SearchStrategy[bool]:
    """Seldom true, also in the plain inputs that hypothesis begins with."""
    return st.integers(1, count).map(lambda drawn: drawn == count)


texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            " ",
            "\0",
            "a\0b",
            "\ud800",
            "²",
            "٣",
            "1_000",
            "0x10",
            "1e400",
            "-0",
            "nan",
            "Infinity",
            "true",
            "null",
            "''; drop table chatter.messages; --",
            "../../etc/passwd",
            "%s%n",
            "{}",
            "[bold]x[/]",
            "[/]",
            "\r\nX-Evil: 1",
            "\N{RIGHT-TO-LEFT OVERRIDE}",
            "\N{COMBINING ACUTE ACCENT}" * 50,
            "a" * 10_000,
        ]
    ),
)
"""Some of them with a lone surrogate or NUL."""

numbers: st.SearchStrategy[Any] = st.one_of(
    st.integers(),
    st.integers(0, 10**7),
    st.floats(),
    st.sampled_from(
        [
            -1,
            0,
            10**9,
            10**9 + 1,
            2**31,
            2**63,
            2**64,
            10**30,
            10**400,
            12.0,
            2.5,
            1e300,
            Decimal("17"),
            Decimal("1e-30"),
            Decimal("NaN"),
            Decimal("sNaN"),
            Decimal("Infinity"),
        ]
    ),
)

scalars = st.none() | st.booleans() | numbers | texts

values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)
"""Whatever Python's JSON can hold, and some more."""


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with some of them flipped, cut off, doubled, or put in between."""
    data = draw(whole)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "insert", "remove", "double", "swap"])):
            case "flip" if at < len(data):
                data = (
                    data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
                )
            case "cut":
                data = data[:at]
            case "insert":
                data = data[:at] + draw(st.sampled_from(BYTES) | st.binary(max_size=4)) + data[at:]
            case "remove":
                data = data[:at] + data[at + draw(st.integers(1, 8)) :]
            case "double":
                data = data[:at] + data[max(0, at - draw(st.integers(1, 20))) : at] + data[at:]
            case "swap":
                old, new = draw(st.sampled_from(SWAPS))
                data = data.replace(old, new, draw(st.integers(1, 3)))
    return data


BYTES = [
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b'"',
    b"'",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\x85",
    "\N{LINE SEPARATOR}".encode(),
    b",",
    b";",
    b"\t",
    b"{",
    b"}",
    b"[" * 2000,
    b"9" * 400,
    b"x" * 200_000,
    b"-",
    b"e",
    b"NaN",
    b"null",
]

SWAPS = [
    (b"\n", b"\r\n"),
    (b"\n", b"\r"),
    (b"1", b"-1"),
    (b"0", b"1e9"),
    (b":", b": "),
    (b",", b",,"),
    (b'"', b'""'),
    (b'"', b""),
    (b"tokens", b"TOKENS"),
    (b"1", b'"1"'),
    (b"1", b"1.5"),
    (b"1", b"[1]"),
]
